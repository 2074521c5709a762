// LFM2: short gated convolutions and attention, alternating, each before a
// gated MLP.
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  std::size_t kernel = 3;
  bool convolution_bias = false;
  float epsilon = 1e-5f;
};

// out(C * conv(B * x));  B, C, x of in_proj.
ValueId short_convolution(ProgramBuilder& program, ValueId x,
                          std::size_t hidden, const Traits& traits) {
  const LinearOptions linear{.bias = traits.convolution_bias,
                             .axis = Axis::kState};
  const auto parts = program.split(
      program.linear(x, "conv.in_proj", 3 * hidden, linear), 1,
      {hidden, hidden, hidden}, {Axis::kState, Axis::kState, Axis::kState});
  const ValueId y = causal_convolution(
      program, program.multiply(parts[0], parts[2]), "conv.conv", traits.kernel,
      traits.convolution_bias, std::nullopt);
  return program.linear(
      program.multiply(parts[1], y), "conv.out_proj", hidden,
      {.bias = traits.convolution_bias, .axis = Axis::kHidden});
}

BlockSpec block(const Architecture& arch, const Traits& traits,
                bool attention) {
  const NormOptions norm{.epsilon = traits.epsilon};
  ProgramBuilder program(arch.hidden);
  const ValueId x = program.norm(program.stream(), "operator_norm", norm);
  ValueId mixed = 0;
  if (attention) {
    mixed = self_attention(
        program, x,
        {.o = "out_proj",
         .hidden = arch.hidden,
         .qk_norm =
             NormOptions{.epsilon = traits.epsilon, .unit = arch.head_dim},
         .q_norm = "q_layernorm",
         .k_norm = "k_layernorm",
         .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
         .attention = {.heads = arch.heads,
                       .kv_heads = arch.kv_heads,
                       .head_dim = arch.head_dim,
                       .value_dim = arch.head_dim,
                       .scale = attention_scale(arch.head_dim)}});
  } else {
    mixed = short_convolution(program, x, arch.hidden, traits);
  }
  const ValueId h = program.add(program.stream(), mixed);
  return program.finish(
      program.add(h, gated_mlp(program, program.norm(h, "ffn_norm", norm),
                               {.prefix = "feed_forward.",
                                .gate = "w1",
                                .up = "w3",
                                .down = "w2",
                                .ffn = arch.ffn,
                                .hidden = arch.hidden})));
}

// The MLP's width may be given before it is cut to two thirds and rounded up.
std::size_t read_ffn(const ConfigReader& config, std::size_t written) {
  const bool adjust = config.flag("block_auto_adjust_ff_dim").value_or(true);
  const double factor = config.number("block_ffn_dim_multiplier").value_or(1.0);
  const std::size_t multiple = require_size(config, "block_multiple_of", 256);
  if (!adjust) return written;
  const std::size_t two_thirds = 2 * written / 3;
  const auto cut =
      static_cast<std::size_t>(factor * static_cast<double>(two_thirds));
  return (cut + multiple - 1) / multiple * multiple;
}

std::vector<std::string> read_types(const ConfigReader& config,
                                    std::size_t layers) {
  const std::vector<std::size_t> attention = config.sizes("full_attn_idxs");
  std::vector<std::string> types(layers,
                                 attention.empty() ? "full_attention" : "conv");
  for (const std::size_t layer : attention) {
    if (layer < layers) types[layer] = "full_attention";
  }
  return read_layer_types(config, layers, {"conv", "full_attention"}, types);
}

}  // namespace

void describe_lfm2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 12288, .default_max_positions = 128000},
             arch);
  arch.ffn = read_ffn(config, arch.ffn);
  const Traits traits{
      .kernel = require_size(config, "conv_L_cache", 3),
      .convolution_bias = config.flag("conv_bias").value_or(false),
      .epsilon = read_epsilon(config, "norm_eps", 1e-5)};
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.theta = 1e6})};
  arch.final_norm = "model.embedding_norm";
  arch.final_norm_options = {.epsilon = traits.epsilon};
  read_tied_head(config, true, arch);
  std::vector<std::size_t> kind_of_layer;
  for (const std::string& type : read_types(config, arch.layers)) {
    kind_of_layer.push_back(type == "conv" ? 0 : 1);
  }
  set_blocks(arch, {block(arch, traits, false), block(arch, traits, true)},
             std::move(kind_of_layer));
}

}  // namespace llmpress

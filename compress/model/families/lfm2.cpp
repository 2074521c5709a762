// LFM2: short gated convolutions and attention, alternating, each before a
// gated MLP, or in most layers of LFM2-MoE a mixture of experts.
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  std::size_t kernel = 3;
  bool convolution_bias = false;
  float epsilon = 1e-5f;
  MixtureOfExperts mixture{};
};

struct LayerKind {
  bool attention = false, mixed = false;
  bool operator==(const LayerKind&) const = default;
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

ValueId feed_forward(ProgramBuilder& program, ValueId x,
                     const Architecture& arch, const Traits& traits,
                     bool mixed) {
  if (mixed) return mixture_of_experts(program, x, traits.mixture);
  return gated_mlp(program, x,
                   {.prefix = "feed_forward.",
                    .gate = "w1",
                    .up = "w3",
                    .down = "w2",
                    .ffn = arch.ffn,
                    .hidden = arch.hidden});
}

BlockSpec block(const Architecture& arch, const Traits& traits,
                const LayerKind& kind) {
  const NormOptions norm{.epsilon = traits.epsilon};
  ProgramBuilder program(arch.hidden);
  const ValueId x = program.norm(program.stream(), "operator_norm", norm);
  ValueId mixed = 0;
  if (kind.attention) {
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
  const ValueId z = program.norm(h, "ffn_norm", norm);
  return program.finish(
      program.add(h, feed_forward(program, z, arch, traits, kind.mixed)));
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

Traits read_traits(const ConfigReader& config, Architecture& arch) {
  Traits traits;
  traits.kernel = require_size(config, "conv_L_cache", 3);
  traits.convolution_bias = config.flag("conv_bias").value_or(false);
  traits.epsilon = read_epsilon(config, "norm_eps", 1e-5);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.theta = 1e6})};
  arch.final_norm = "model.embedding_norm";
  arch.final_norm_options = {.epsilon = traits.epsilon};
  return traits;
}

MixtureOfExperts read_mixture(const ConfigReader& config, Architecture& arch) {
  const std::string at = "feed_forward.";
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_experts"}, 32, 4, arch),
      .ffn = require_size(config, "moe_intermediate_size", 1792),
      .hidden = arch.hidden,
      .router = at + "gate",
      .gate = at + "experts.%.w1",
      .up = at + "experts.%.w3",
      .down = at + "experts.%.w2",
      .gate_up_stack = at + "experts.gate_up_proj",
      .down_stack = at + "experts.down_proj"};
  if (config.flag("use_expert_bias").value_or(true)) {
    mixture.correction_bias = at + "expert_bias";
  }
  mixture.route.score = RouteScore::kSigmoid;
  mixture.route.normalize = config.flag("norm_topk_prob").value_or(true);
  mixture.route.normalize_epsilon = 1e-6f;
  mixture.route.scale =
      static_cast<float>(config.number("routed_scaling_factor").value_or(1.0));
  return mixture;
}

// The first `dense` layers have no experts.
void set_kinds(const ConfigReader& config, const Traits& traits,
               std::size_t dense, Architecture& arch) {
  std::vector<LayerKind> kinds;
  for (const std::string& type : read_types(config, arch.layers)) {
    kinds.push_back(
        {.attention = type != "conv", .mixed = kinds.size() >= dense});
  }
  set_blocks_by(arch, kinds, [&](const LayerKind& kind) {
    return block(arch, traits, kind);
  });
}

}  // namespace

void describe_lfm2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 12288, .default_max_positions = 128000},
             arch);
  arch.ffn = read_ffn(config, arch.ffn);
  const Traits traits = read_traits(config, arch);
  read_tied_head(config, true, arch);
  set_kinds(config, traits, arch.layers, arch);
}

void describe_lfm2_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 7168,
              .default_max_positions = 128000,
              .default_kv_heads = 8},
             arch);
  Traits traits = read_traits(config, arch);
  traits.mixture = read_mixture(config, arch);
  read_tied_head(config, true, arch);
  // Older files have another name for it, which comes first.
  arch.tied_head = config.flag("tie_embedding").value_or(arch.tied_head);
  if (!config.has("layer_types")) config.invalid("layer_types", "a list");
  set_kinds(config, traits, config.size("num_dense_layers").value_or(2), arch);
  arch.ffn = 0;
}

}  // namespace llmpress

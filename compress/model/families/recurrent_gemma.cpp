// RecurrentGemma (arXiv:2404.07839): Griffin's recurrent blocks
// (arXiv:2402.19427) and attention within a window, each before a GELU-gated
// MLP; norms whose gain is stored less 1.
#include <cmath>
#include <string>
#include <vector>

#include "compress/core/float_formats.h"
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  NormOptions norm{};
  std::size_t width = 0, kernel = 4;  // of the recurrence
  std::size_t window = 0, ffn = 0;
  bool bias = false;  // of q, k and v
  Activation activation = Activation::kGeluTanh;
};

// linear_out(activation(linear_y(x)) * rg_lru(conv(linear_x(x)))).
ValueId recurrent_part(ProgramBuilder& program, ValueId x,
                       const Architecture& arch, const Traits& traits) {
  const std::string at = "temporal_block.", lru = at + "rg_lru.";
  const LinearOptions linear{.bias = true, .axis = Axis::kState};
  const ValueId y = program.linear(x, at + "linear_y", traits.width, linear);
  ValueId h = program.linear(x, at + "linear_x", traits.width, linear);
  h = causal_convolution(program, h, at + "conv_1d", traits.kernel, true,
                         std::nullopt);
  const std::size_t blocks = arch.heads, unit = traits.width / blocks;
  const auto weight = [&](const std::string& name) {
    return program.parameter(lru + name, {blocks, unit, unit});
  };
  const auto bias = [&](const std::string& name) {
    return program.parameter(lru + name, {blocks, unit});
  };
  const RgLruOp op{
      .width = traits.width,
      .blocks = blocks,
      .input_weight = weight("input_gate_weight"),
      .input_bias = bias("input_gate_bias"),
      .recurrent_weight = weight("recurrent_gate_weight"),
      .recurrent_bias = bias("recurrent_gate_bias"),
      .decay = program.parameter(lru + "recurrent_param", {traits.width}),
      .slot = program.state_slot(traits.width)};
  h = program.gate(y, program.apply(op, {h}), traits.activation);
  return program.linear(h, at + "linear_out", arch.hidden,
                        {.bias = true, .axis = Axis::kHidden});
}

BlockSpec block(const Architecture& arch, const Traits& traits,
                const std::string& type) {
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .prefix = "temporal_block.",
      .hidden = arch.hidden,
      .qkv_bias = traits.bias,
      .o_bias = true,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch, traits.window)};
  const GatedMlp mlp{.prefix = "mlp_block.",
                     .ffn = traits.ffn,
                     .hidden = arch.hidden,
                     .activation = traits.activation,
                     .bias = true};
  return sequential_block(
      {.before_attention = "temporal_pre_norm",
       .before_mlp = "channel_pre_norm",
       .options = traits.norm},
      program,
      [&](ValueId x) {
        return type == "recurrent" ? recurrent_part(program, x, arch, traits)
                                   : self_attention(program, x, attention);
      },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
}

// `block_types`, over and over.
std::vector<std::string> read_types(const ConfigReader& config,
                                    std::size_t layers) {
  std::vector<std::string> cycle = config.texts("block_types");
  if (cycle.empty()) cycle = {"recurrent", "recurrent", "attention"};
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back(cycle[l % cycle.size()]);
    if (types.back() != "recurrent" && types.back() != "attention") {
      config.unsupported("block_types", "\"recurrent\" or \"attention\"");
    }
  }
  return types;
}

}  // namespace

void describe_recurrent_gemma(const ConfigReader& config, Architecture& arch) {
  config.ignore("w_init_variance_scale");
  config.ignore("embeddings_scale_by_sqrt_dim");
  config.ignore("final_w_init_variance_scale");
  read_sizes(config,
             {.default_hidden = 2560,
              .default_layers = 26,
              .default_heads = 10,
              .default_vocabulary = 256000,
              .default_ffn = 7680,
              .default_max_positions = 8192},
             arch);
  if (arch.ffn % 2 != 0) config.invalid("intermediate_size", "an even size");
  const Traits traits{
      .norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6),
               .offset = 1},
      .width = require_size(config, "lru_width", arch.hidden),
      .kernel = require_size(config, "conv1d_width", 4),
      .window = require_size(config, "attention_window_size", 2048),
      .ffn = arch.ffn / 2,  // the key counts gate and up
      .bias = config.flag("attention_bias").value_or(false),
      .activation =
          read_activation(config, "hidden_activation", "gelu_pytorch_tanh")};
  if (traits.width % arch.heads != 0) {
    config.invalid("lru_width", "a multiple of num_attention_heads");
  }
  arch.ffn = 0;  // no one number for surgery: the key is twice it
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.5})};
  arch.embedding_scale = bf16_to_float(
      bf16_from_float(std::sqrt(static_cast<float>(arch.hidden))));
  arch.logit_softcap = read_softcap(config, "logits_soft_cap", 30);
  arch.final_norm = "model.final_norm";
  arch.final_norm_options = traits.norm;
  arch.hf_class.reads_weights_early = true;
  read_tied_head(config, true, arch);
  set_blocks_by(
      arch, read_types(config, arch.layers),
      [&](const std::string& type) { return block(arch, traits, type); });
}

}  // namespace llmpress

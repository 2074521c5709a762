// Qwen3-Next and Qwen3.5: Gated DeltaNet in most layers, attention with a gated
// output in the others; norms whose gain is stored less 1. Qwen3-Next has a
// mixture of experts, Qwen3.5's dense models a gated MLP.
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"
#include "compress/model/families/gated_delta_net.h"

namespace llmpress {
namespace {

struct Traits {
  NormOptions norm{};
  SelfAttention attention{};
  GatedDeltaNet delta{};
  GatedMlp dense{};
  MixtureOfExperts mixture{};
};

struct LayerKind {
  bool attention = false, mixed = false;
  bool operator==(const LayerKind&) const = default;
};

// Every `full_attention_interval`th layer has attention where layer_types is
// absent.
std::vector<LayerKind> read_layers_of_attention(const ConfigReader& config,
                                                std::size_t layers) {
  const std::size_t interval =
      require_size(config, "full_attention_interval", 4);
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back((l + 1) % interval == 0 ? "full_attention"
                                            : "linear_attention");
  }
  std::vector<LayerKind> kinds;
  for (const std::string& type : read_layer_types(
           config, layers, {"linear_attention", "full_attention"}, types)) {
    kinds.push_back({.attention = type == "full_attention"});
  }
  return kinds;
}

GatedDeltaNet read_delta_net(const ConfigReader& config,
                             const Architecture& arch) {
  const GatedDeltaNet part{
      .hidden = arch.hidden,
      .kernel = require_size(config, "linear_conv_kernel_dim", 4),
      .key_heads = require_size(config, "linear_num_key_heads", 16),
      .key_dim = require_size(config, "linear_key_head_dim", 128),
      .value_heads = require_size(config, "linear_num_value_heads", 32),
      .value_dim = require_size(config, "linear_value_head_dim", 128),
      .activation = read_activation(config, "hidden_act", "silu"),
      .epsilon = read_epsilon(config, "rms_norm_eps", 1e-6)};
  if (part.value_heads % part.key_heads != 0) {
    config.invalid("linear_num_value_heads",
                   "a multiple of linear_num_key_heads");
  }
  return part;
}

Traits read_traits(const ConfigReader& config, const Architecture& arch) {
  Traits traits;
  traits.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6),
                 .offset = 1};
  const bool bias = config.flag("attention_bias").value_or(false);
  traits.attention = {.hidden = arch.hidden,
                      .qkv_bias = bias,
                      .o_bias = bias,
                      .qk_norm = traits.norm,
                      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                      .attention = attention_of(arch)};
  traits.attention.qk_norm->unit = arch.head_dim;
  traits.delta = read_delta_net(config, arch);
  traits.dense = {.ffn = arch.ffn,
                  .hidden = arch.hidden,
                  .activation = traits.delta.activation};
  return traits;
}

void finish(const ConfigReader& config, const Traits& traits,
            const std::vector<LayerKind>& layers, Architecture& arch) {
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.25})};
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  set_blocks_by(arch, layers, [&](const LayerKind& kind) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = traits.norm}, program,
        [&](ValueId x) {
          return kind.attention ? gated_attention(program, x, traits.attention)
                                : gated_delta_net(program, x, traits.delta);
        },
        [&](ValueId x) {
          return kind.mixed ? mixture_of_experts(program, x, traits.mixture)
                            : gated_mlp(program, x, traits.dense);
        });
  });
}

void read_mixture(const ConfigReader& config, std::size_t default_experts,
                  std::size_t default_top, Traits& traits, Architecture& arch) {
  traits.mixture = {.route = read_route(config, {"num_experts"},
                                        default_experts, default_top, arch),
                    .ffn = require_size(config, "moe_intermediate_size", 512),
                    .hidden = arch.hidden,
                    .activation = traits.dense.activation,
                    .shared = traits.dense,
                    .shared_gate = "mlp.shared_expert_gate"};
  traits.mixture.route.normalize = true;
  traits.mixture.shared->prefix = "mlp.shared_expert.";
  traits.mixture.shared->ffn =
      require_size(config, "shared_expert_intermediate_size", 512);
}

}  // namespace

void describe_qwen3_next(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 2048,
              .default_layers = 48,
              .default_heads = 16,
              .default_vocabulary = 151936,
              .default_ffn = 5632,
              .default_max_positions = 32768,
              .default_head_dim = 256,
              .default_kv_heads = 2},
             arch);
  Traits traits = read_traits(config, arch);
  traits.delta.fused = true;
  read_mixture(config, 512, 10, traits, arch);
  traits.mixture.route.normalize = config.flag("norm_topk_prob").value_or(true);
  std::vector<LayerKind> layers = read_layers_of_attention(config, arch.layers);
  const std::vector<bool> mixed = read_mixed_layers(config, arch.layers);
  for (std::size_t l = 0; l < arch.layers; ++l) layers[l].mixed = mixed[l];
  finish(config, traits, layers, arch);
  arch.ffn = 0;
}

namespace {

// What Qwen3.5's dense and mixed decoders have in common beside their sizes.
void read_qwen3_5_keys(const ConfigReader& config, Architecture& arch) {
  for (const char* key :
       {"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings",
        "mamba_ssm_dtype", "attn_output_gate"}) {
    config.ignore(key);
  }
  // Positions in pictures; those of text are the same in all three sections.
  if (const auto rope = find_rope(config)) {
    rope->ignore("mrope_section");
    rope->ignore("mrope_interleaved");
  }
  arch.other_places = {{.body = "model.language_model.", .head = "lm_head"}};
}

}  // namespace

void describe_qwen3_5_text(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = 32,
              .default_heads = 16,
              .default_vocabulary = 248320,
              .default_ffn = 12288,
              .default_max_positions = 32768,
              .default_head_dim = 256,
              .default_kv_heads = 4},
             arch);
  read_qwen3_5_keys(config, arch);
  finish(config, read_traits(config, arch),
         read_layers_of_attention(config, arch.layers), arch);
}

void describe_qwen3_5_moe_text(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.ffn = "",
              .default_hidden = 2048,
              .default_layers = 40,
              .default_heads = 16,
              .default_vocabulary = 248320,
              .default_max_positions = 32768,
              .default_head_dim = 256,
              .default_kv_heads = 2},
             arch);
  read_qwen3_5_keys(config, arch);
  require_flag(config, "norm_topk_prob", true);
  Traits traits = read_traits(config, arch);
  read_mixture(config, 256, 8, traits, arch);
  std::vector<LayerKind> layers = read_layers_of_attention(config, arch.layers);
  for (LayerKind& layer : layers) layer.mixed = true;
  finish(config, traits, layers, arch);
}

}  // namespace llmpress

// Qwen1.5-MoE and Qwen2-MoE (arXiv:2407.10671), with an expert that all tokens
// share behind a gate; Qwen3-MoE (arXiv:2505.09388), without; OLMoE
// (arXiv:2409.02060).
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct LayerKind {
  bool mixed = true;  // experts, or a dense MLP
  std::size_t window = 0;
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  NormOptions norm{};
  SelfAttention attention{};
  MixtureOfExperts mixture{};
  GatedMlp dense{};
};

Traits read_traits(const ConfigReader& config, const Architecture& arch,
                   const RouteOp& route, double epsilon) {
  Traits traits;
  traits.norm.epsilon = read_epsilon(config, "rms_norm_eps", epsilon);
  traits.attention = {.hidden = arch.hidden,
                      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                      .attention = attention_of(arch)};
  traits.dense = {.ffn = arch.ffn,
                  .hidden = arch.hidden,
                  .activation = read_activation(config, "hidden_act", "silu")};
  traits.mixture = {.route = route,
                    .ffn = arch.ffn,
                    .hidden = arch.hidden,
                    .activation = traits.dense.activation};
  traits.mixture.route.normalize =
      config.flag("norm_topk_prob").value_or(false);
  return traits;
}

void read_attention_bias(const ConfigReader& config, Traits& traits) {
  const bool bias = config.flag("attention_bias").value_or(false);
  traits.attention.qkv_bias = traits.attention.o_bias = bias;
}

void finish(const ConfigReader& config, const Traits& traits,
            const std::vector<LayerKind>& layers, Architecture& arch) {
  set_blocks_by(arch, layers, [&](const LayerKind& kind) {
    SelfAttention attention = traits.attention;
    attention.attention.window = kind.window;
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = traits.norm}, program,
        [&](ValueId x) { return self_attention(program, x, attention); },
        [&](ValueId x) {
          return kind.mixed ? mixture_of_experts(program, x, traits.mixture)
                            : gated_mlp(program, x, traits.dense);
        });
  });
  arch.ropes = {read_whole_rope(config, arch)};
  arch.final_norm_options = traits.norm;
  arch.ffn = 0;
  read_tied_head(config, false, arch);
}

std::vector<LayerKind> read_layer_kinds(const ConfigReader& config,
                                        std::size_t layers) {
  std::vector<LayerKind> kinds;
  for (const bool mixed : read_mixed_layers(config, layers)) {
    kinds.push_back({.mixed = mixed});
  }
  return kinds;
}

// Of the first max_window_layers every other one has a window, unless
// layer_types says otherwise.
void read_qwen2_windows(const ConfigReader& config,
                        std::vector<LayerKind>& layers) {
  const bool on = config.flag("use_sliding_window").value_or(false);
  const std::size_t below = config.size("max_window_layers").value_or(28);
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    types.push_back(on && l % 2 == 0 && l < below ? "sliding_attention"
                                                  : "full_attention");
  }
  types = read_layer_types(config, layers.size(),
                           {"full_attention", "sliding_attention"}, types);
  config.ignore("sliding_window");
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (types[l] != "sliding_attention") continue;
    if (!on) config.unsupported("use_sliding_window", "true");
    layers[l].window = read_window(config, 4096);
    if (layers[l].window == 0) config.invalid("sliding_window", "a size");
  }
}

}  // namespace

void describe_qwen2_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 5632,
              .default_max_positions = 32768,
              .default_kv_heads = 16},
             arch);
  Traits traits = read_traits(
      config, arch, read_route(config, {"num_experts"}, 60, 4, arch), 1e-6);
  traits.attention.qkv_bias = config.flag("qkv_bias").value_or(true);
  traits.mixture.ffn = require_size(config, "moe_intermediate_size", 1408);
  traits.mixture.shared = traits.dense;
  traits.mixture.shared->prefix = "mlp.shared_expert.";
  traits.mixture.shared->ffn =
      require_size(config, "shared_expert_intermediate_size", 5632);
  traits.mixture.shared_gate = "mlp.shared_expert_gate";
  std::vector<LayerKind> layers = read_layer_kinds(config, arch.layers);
  read_qwen2_windows(config, layers);
  finish(config, traits, layers, arch);
}

void describe_qwen3_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 6144,
              .default_max_positions = 32768,
              .default_kv_heads = 4},
             arch);
  Traits traits = read_traits(
      config, arch,
      read_route(config, {"num_experts", "num_local_experts"}, 128, 8, arch),
      1e-6);
  read_attention_bias(config, traits);
  traits.attention.qk_norm =
      NormOptions{.epsilon = traits.norm.epsilon, .unit = arch.head_dim};
  traits.mixture.ffn = require_size(config, "moe_intermediate_size", 768);
  std::vector<LayerKind> layers = read_layer_kinds(config, arch.layers);
  read_layer_types(config, arch.layers, {"full_attention"}, {});
  config.ignore("max_window_layers");  // all layers have the window, or none
  config.ignore("sliding_window");
  if (config.flag("use_sliding_window").value_or(false) &&
      !config.is_null("sliding_window")) {
    const std::size_t window = require_size(config, "sliding_window", 4096);
    for (LayerKind& layer : layers) layer.window = window;
  }
  finish(config, traits, layers, arch);
}

void describe_olmoe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 2048, .default_max_positions = 4096},
             arch);
  Traits traits = read_traits(
      config, arch,
      read_route(config, {"num_experts", "num_local_experts"}, 64, 8, arch),
      1e-5);
  read_attention_bias(config, traits);
  traits.attention.qk_norm = traits.norm;  // of all heads together
  if (config.has("clip_qkv")) {
    traits.attention.clip =
        static_cast<float>(require_positive(config, "clip_qkv"));
  }
  finish(config, traits, std::vector<LayerKind>(arch.layers), arch);
}

}  // namespace llmpress

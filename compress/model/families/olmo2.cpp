// OLMo 2 (arXiv:2501.00656) and 3: norms after attention and MLP instead of
// before, and of all queries and all keys; OLMo 3 has windows and a rotary
// embedding by kind of layer. EXAONE 4 (arXiv:2507.11407) has the same norms,
// but of each head, and turns only where there is a window. FlexOlmo
// (arXiv:2507.07024) is OLMo 2 with mixtures of experts.
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct LayerKind {
  std::size_t window = 0;
  std::optional<std::size_t> rope{};
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  bool bias = false;  // of attention
  NormOptions norm{}, qk_norm{};
  Activation activation = Activation::kSilu;
  std::optional<RouteOp> route{};  // experts in place of the MLP
};

BlockSpec block(const Architecture& arch, const Traits& traits,
                LayerKind kind) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = traits.bias,
                          .o_bias = traits.bias,
                          .qk_norm = traits.qk_norm,
                          .attention = attention_of(arch, kind.window)};
  if (kind.rope) {
    attention.rope = RopeOp{.rope = *kind.rope, .head_dim = arch.head_dim};
  }
  const GatedMlp mlp{
      .ffn = arch.ffn, .hidden = arch.hidden, .activation = traits.activation};
  const MixtureOfExperts mixture{.route = traits.route.value_or(RouteOp{}),
                                 .ffn = arch.ffn,
                                 .hidden = arch.hidden,
                                 .activation = traits.activation};
  return sequential_block(
      {.before_attention = "",
       .after_attention = "post_attention_layernorm",
       .before_mlp = "",
       .after_mlp = "post_feedforward_layernorm",
       .options = traits.norm},
      program, [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) {
        return traits.route ? mixture_of_experts(program, x, mixture)
                            : gated_mlp(program, x, mlp);
      });
}

Traits read_traits(const ConfigReader& config, Architecture& arch,
                   double default_epsilon = 1e-5) {
  Traits traits;
  traits.norm = {.epsilon =
                     read_epsilon(config, "rms_norm_eps", default_epsilon)};
  traits.qk_norm = traits.norm;
  traits.activation = read_activation(config, "hidden_act", "silu");
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  return traits;
}

void set_kinds(Architecture& arch, const Traits& traits,
               const std::vector<LayerKind>& kinds) {
  set_blocks_by(arch, kinds, [&](const LayerKind& kind) {
    return block(arch, traits, kind);
  });
}

// `layer_types`, or what the pattern makes: a number n gives every nth layer
// full attention.
std::vector<std::string> exaone_types(const ConfigReader& config,
                                      std::size_t layers, std::size_t window) {
  std::vector<std::string> fallback(layers, "full_attention");
  if (config.has("layer_types") || window == 0) {
    config.ignore("sliding_window_pattern");
  } else {
    fallback = alternating_layer_types(
        layers, require_size(config, "sliding_window_pattern", 4));
  }
  return read_layer_types(config, layers,
                          {"full_attention", "sliding_attention"}, fallback);
}

}  // namespace

void describe_olmo2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  Traits traits = read_traits(config, arch);
  traits.bias = config.flag("attention_bias").value_or(false);
  arch.ropes = {read_whole_rope(config, arch)};
  set_blocks(arch, block(arch, traits, {.rope = 0}));
}

void describe_flex_olmo(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 11008, .default_max_positions = 4096},
             arch);
  Traits traits = read_traits(config, arch, 1e-6);
  traits.bias = config.flag("attention_bias").value_or(false);
  traits.route =
      read_route(config, {"num_experts", "num_local_experts"}, 7, 5, arch);
  traits.route->normalize = config.flag("norm_topk_prob").value_or(false);
  arch.ropes = {read_whole_rope(config, arch, 5e5)};
  set_blocks(arch, block(arch, traits, {.rope = 0}));
  arch.ffn = 0;
}

void describe_olmo3(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  Traits traits = read_traits(config, arch);
  traits.bias = config.flag("attention_bias").value_or(false);
  const auto types = read_layer_types(config, arch.layers,
                                      {"full_attention", "sliding_attention"},
                                      alternating_layer_types(arch.layers, 4));
  // As in transformers: `rope_theta` is that of full attention alone.
  arch.ropes = {
      read_rope_of_type(config, arch, "full_attention", "rope_theta", 5e5),
      read_rope_of_type(config, arch, "sliding_attention", "", 5e5)};
  const std::size_t window = read_window(config, 4096);
  std::vector<LayerKind> kinds;
  for (const std::string& type : types) {
    const bool slides = type == "sliding_attention";
    kinds.push_back({.window = slides ? window : 0, .rope = slides ? 1u : 0u});
  }
  set_kinds(arch, traits, kinds);
}

void describe_exaone4(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_kv_heads = 32}, arch);
  Traits traits = read_traits(config, arch);
  traits.qk_norm.unit = arch.head_dim;
  arch.ropes = {read_whole_rope(config, arch)};
  const std::size_t window = read_window(config, 4096);
  std::vector<LayerKind> kinds;
  for (const std::string& type : exaone_types(config, arch.layers, window)) {
    const bool slides = type == "sliding_attention";
    if (slides && window == 0) config.invalid("sliding_window", "a size");
    LayerKind kind{.window = slides ? window : 0};
    if (slides || window == 0) kind.rope = 0;
    kinds.push_back(kind);
  }
  set_kinds(arch, traits, kinds);
}

}  // namespace llmpress

// Gemma 1 to 3: norms whose gain is stored less 1, an embedding scaled by
// sqrt(hidden), a GELU-gated MLP. Gemma 2 (arXiv:2408.00118) adds norms after
// both parts, soft caps and windows in alternate layers, Gemma 3
// (arXiv:2503.19786) norms of heads and a rotary embedding by kind of layer.
// VaultGemma (arXiv:2510.15001) is Gemma 2 without the norms after.
#include <cmath>
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct Traits {
  bool bias = false;  // of attention
  bool head_norms = false, norms_after = false;
  std::string before_mlp = "post_attention_layernorm";
  Activation activation = Activation::kGeluTanh;
  NormOptions norm{};
  float scale = 1, softcap = 0;
};

struct LayerKind {
  std::size_t window = 0, rope = 0;
  bool operator==(const LayerKind&) const = default;
};

BlockNorms block_norms(const Traits& traits) {
  if (!traits.norms_after) {
    return {.before_mlp = traits.before_mlp, .options = traits.norm};
  }
  return {.after_attention = "post_attention_layernorm",
          .before_mlp = "pre_feedforward_layernorm",
          .after_mlp = "post_feedforward_layernorm",
          .options = traits.norm};
}

BlockSpec block(const Architecture& arch, const Traits& traits,
                LayerKind kind) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = traits.bias,
      .o_bias = traits.bias,
      .rope = RopeOp{.rope = kind.rope, .head_dim = arch.head_dim},
      .attention = attention_of(arch, kind.window)};
  attention.attention.scale = traits.scale;
  attention.attention.softcap = traits.softcap;
  if (traits.head_norms) {
    attention.qk_norm = traits.norm;
    attention.qk_norm->unit = arch.head_dim;
  }
  const GatedMlp mlp{
      .ffn = arch.ffn, .hidden = arch.hidden, .activation = traits.activation};
  return sequential_block(
      block_norms(traits), program,
      [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
}

// What the three have in common.
Traits read_traits(const ConfigReader& config, Architecture& arch) {
  Traits traits{.bias = config.flag("attention_bias").value_or(false)};
  traits.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6),
                 .offset = 1};
  arch.final_norm_options = traits.norm;
  arch.embedding_scale = std::sqrt(static_cast<float>(arch.hidden));
  read_tied_head(config, true, arch);
  return traits;
}

// Gemma 2 and 3.
void read_scale_and_cap(const ConfigReader& config, double default_cap,
                        Traits& traits, Architecture& arch) {
  traits.scale = static_cast<float>(
      1 / std::sqrt(require_positive(config, "query_pre_attn_scalar", 256)));
  arch.logit_softcap =
      read_softcap(config, "final_logit_softcapping", default_cap);
  traits.activation =
      read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  config.ignore("hidden_act");
}

// Gemma 2 and VaultGemma.
void finish_gemma2(const ConfigReader& config, Traits traits,
                   Architecture& arch) {
  read_scale_and_cap(config, 30, traits, arch);
  traits.softcap = read_softcap(config, "attn_logit_softcapping", 50);
  arch.ropes = {read_whole_rope(config, arch)};
  const auto types = read_layer_types(config, arch.layers,
                                      {"full_attention", "sliding_attention"},
                                      alternating_layer_types(arch.layers, 2));
  std::vector<LayerKind> kinds;
  for (const std::size_t w : windows_of(types, read_window(config, 4096))) {
    kinds.push_back({.window = w});
  }
  set_blocks_by(arch, kinds,
                [&](LayerKind kind) { return block(arch, traits, kind); });
}

constexpr SizeKeys kGemma2Sizes{.default_hidden = 2304,
                                .default_layers = 26,
                                .default_heads = 8,
                                .default_vocabulary = 256000,
                                .default_ffn = 9216,
                                .default_max_positions = 8192,
                                .default_head_dim = 256,
                                .default_kv_heads = 4};

}  // namespace

void describe_gemma(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 3072,
              .default_layers = 28,
              .default_heads = 16,
              .default_vocabulary = 256000,
              .default_ffn = 24576,
              .default_max_positions = 8192,
              .default_head_dim = 256,
              .default_kv_heads = 16},
             arch);
  Traits traits = read_traits(config, arch);
  traits.scale = attention_scale(arch.head_dim);
  traits.activation =
      read_activation(config, "hidden_act", "gelu_pytorch_tanh");
  // The first releases say "gelu" and mean its approximation.
  if (traits.activation == Activation::kGeluErf) {
    traits.activation = Activation::kGeluTanh;
  }
  config.ignore("hidden_activation");
  arch.ropes = {read_whole_rope(config, arch)};
  set_blocks(arch, block(arch, traits, {}));
}

void describe_gemma2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, kGemma2Sizes, arch);
  Traits traits = read_traits(config, arch);
  traits.norms_after = true;
  finish_gemma2(config, traits, arch);
}

void describe_vaultgemma(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, kGemma2Sizes, arch);
  Traits traits = read_traits(config, arch);
  traits.before_mlp = "pre_feedforward_layernorm";
  finish_gemma2(config, traits, arch);
}

void describe_gemma3_text(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 2304,
              .default_layers = 26,
              .default_heads = 8,
              .default_vocabulary = 262208,
              .default_ffn = 9216,
              .default_max_positions = 131072,
              .default_head_dim = 256,
              .default_kv_heads = 4},
             arch);
  Traits traits = read_traits(config, arch);
  traits.head_norms = traits.norms_after = true;
  read_scale_and_cap(config, 0, traits, arch);
  const std::size_t period = require_size(config, "sliding_window_pattern", 6);
  const auto types = read_layer_types(
      config, arch.layers, {"full_attention", "sliding_attention"},
      alternating_layer_types(arch.layers, period));
  arch.ropes = {
      read_rope_of_type(config, arch, "full_attention", "rope_theta", 1e6),
      read_rope_of_type(config, arch, "sliding_attention",
                        "rope_local_base_freq", 1e4)};
  const std::size_t window = read_window(config, 4096);
  std::vector<LayerKind> kinds;
  for (const std::string& type : types) {
    const bool slides = type == "sliding_attention";
    kinds.push_back({.window = slides ? window : 0, .rope = slides ? 1u : 0u});
  }
  set_blocks_by(arch, kinds,
                [&](LayerKind kind) { return block(arch, traits, kind); });
}

}  // namespace llmpress

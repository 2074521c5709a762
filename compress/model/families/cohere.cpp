// Command-R and Command R7B: attention and MLP read one layer norm without bias
// in parallel, and neighbouring coordinates turn. In Command R7B three layers
// of four have a window and turn, the fourth sees all and knows no positions.
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct LayerKind {
  std::size_t window = 0;
  bool turns = true;
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  bool bias = false;        // of attention
  bool head_norms = false;  // of queries and keys
  Activation activation = Activation::kSilu;
};

BlockSpec block(const Architecture& arch, const Traits& traits,
                const LayerKind& kind) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = traits.bias,
                          .o_bias = traits.bias,
                          .attention = attention_of(arch, kind.window)};
  if (traits.head_norms) {
    attention.qk_norm = arch.final_norm_options;
    attention.qk_norm->unit = arch.head_dim;
    attention.head_gains = true;
  }
  if (kind.turns) {
    attention.rope = RopeOp{
        .rope = 0, .head_dim = arch.head_dim, .style = RopeStyle::kPairs};
  }
  const GatedMlp mlp{
      .ffn = arch.ffn, .hidden = arch.hidden, .activation = traits.activation};
  return parallel_block(
      {.before_mlp = "", .options = arch.final_norm_options}, program,
      [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
}

// What the two have in common.
Traits read_traits(const ConfigReader& config, double default_theta,
                   Architecture& arch) {
  read_sizes(config, {.default_max_positions = 8192}, arch);
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5)};
  arch.logit_scale =
      static_cast<float>(config.number("logit_scale").value_or(0.0625));
  read_tied_head(config, true, arch);
  arch.ropes = {read_whole_rope(config, arch, default_theta)};
  return {.bias = config.flag("attention_bias").value_or(false),
          .activation = read_activation(config, "hidden_act", "silu")};
}

// Settings of the code that came with the first checkpoints, all as above.
void ignore_others(const ConfigReader& config) {
  for (const char* key : {"layer_switch", "order_of_interleaved_layers",
                          "position_embedding_type", "rotary_pct",
                          "use_embedding_sharing", "use_gated_activation",
                          "use_parallel_block", "use_parallel_embedding"}) {
    config.ignore(key);
  }
}

}  // namespace

void describe_cohere(const ConfigReader& config, Architecture& arch) {
  Traits traits = read_traits(config, 5e5, arch);
  traits.head_norms = config.flag("use_qk_norm").value_or(false);
  set_blocks(arch, block(arch, traits, {}));
}

void describe_cohere2(const ConfigReader& config, Architecture& arch) {
  ignore_others(config);
  const Traits traits = read_traits(config, 1e4, arch);
  const auto types = read_layer_types(
      config, arch.layers, {"full_attention", "sliding_attention"},
      alternating_layer_types(
          arch.layers, require_size(config, "sliding_window_pattern", 4)));
  const std::size_t window = read_window(config, 4096);
  if (window == 0) config.unsupported("sliding_window", "a size");
  std::vector<LayerKind> kinds;
  for (const std::size_t w : windows_of(types, window)) {
    kinds.push_back({.window = w, .turns = w != 0});
  }
  set_blocks_by(arch, kinds, [&](const LayerKind& kind) {
    return block(arch, traits, kind);
  });
}

}  // namespace llmpress

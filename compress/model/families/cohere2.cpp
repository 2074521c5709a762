// Command R7B: attention and MLP read one layer norm without bias in parallel;
// three layers of four have a window and turn neighbouring coordinates, the
// fourth sees all and knows no positions.
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

BlockSpec block(const Architecture& arch, bool bias, Activation activation,
                std::size_t window) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .attention = attention_of(arch, window)};
  if (window != 0) {
    attention.rope = RopeOp{
        .rope = 0, .head_dim = arch.head_dim, .style = RopeStyle::kPairs};
  }
  const GatedMlp mlp{
      .ffn = arch.ffn, .hidden = arch.hidden, .activation = activation};
  return parallel_block(
      {.before_mlp = "", .options = arch.final_norm_options}, program,
      [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
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

void describe_cohere2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 8192}, arch);
  ignore_others(config);
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5)};
  arch.logit_scale =
      static_cast<float>(config.number("logit_scale").value_or(0.0625));
  read_tied_head(config, true, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  const auto types = read_layer_types(
      config, arch.layers, {"full_attention", "sliding_attention"},
      alternating_layer_types(
          arch.layers, require_size(config, "sliding_window_pattern", 4)));
  const std::size_t window = read_window(config, 4096);
  if (window == 0) config.unsupported("sliding_window", "a size");
  const bool bias = config.flag("attention_bias").value_or(false);
  const Activation activation = read_activation(config, "hidden_act", "silu");
  set_blocks_by(arch, windows_of(types, window), [&](std::size_t kind) {
    return block(arch, bias, activation, kind);
  });
}

}  // namespace llmpress

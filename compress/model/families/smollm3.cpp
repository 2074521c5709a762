// SmolLM3: Llama's block, where every fourth layer knows no positions.
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct LayerKind {
  bool turns = true;
  std::size_t window = 0;
  bool operator==(const LayerKind&) const = default;
};

// `no_rope_layers` [layers] says 1 where a layer turns.
std::vector<LayerKind> read_turns(const ConfigReader& config,
                                  std::size_t layers) {
  const std::size_t interval =
      require_size(config, "no_rope_layer_interval", 4);
  std::vector<LayerKind> kinds(layers);
  const std::vector<std::size_t> turns = config.sizes("no_rope_layers");
  if (!turns.empty() && turns.size() != layers) {
    config.invalid("no_rope_layers", "one entry a layer");
  }
  for (std::size_t l = 0; l < layers; ++l) {
    kinds[l].turns = turns.empty() ? (l + 1) % interval != 0 : turns[l] != 0;
  }
  return kinds;
}

void read_windows(const ConfigReader& config, std::vector<LayerKind>& kinds) {
  const bool on = config.flag("use_sliding_window").value_or(false);
  const std::size_t window = read_window(config, 0);
  std::vector<std::string> types(kinds.size(), "full_attention");
  for (std::size_t l = 0; l < kinds.size(); ++l) {
    if (on && window != 0 && !kinds[l].turns) types[l] = "sliding_attention";
  }
  types = read_layer_types(config, kinds.size(),
                           {"full_attention", "sliding_attention"}, types);
  for (std::size_t l = 0; l < kinds.size(); ++l) {
    if (types[l] != "sliding_attention") continue;
    if (!on || window == 0) {
      config.unsupported("layer_types",
                         "full_attention alone without use_sliding_window and "
                         "sliding_window");
    }
    kinds[l].window = window;
  }
}

BlockSpec block(const Architecture& arch, const GatedMlp& mlp, bool bias,
                LayerKind kind) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .attention = attention_of(arch, kind.window)};
  if (kind.turns) {
    attention.rope = RopeOp{.rope = 0, .head_dim = arch.head_dim};
  }
  return sequential_block(
      {.options = arch.final_norm_options}, program,
      [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
}

}  // namespace

void describe_smollm3(const ConfigReader& config, Architecture& arch) {
  read_sizes(
      config,
      {.default_ffn = 11008,
       .default_max_positions = 32768,
       .default_kv_heads = config.is_null("num_key_value_heads") ? 0u : 4u},
      arch);
  config.ignore("max_window_layers");
  arch.final_norm_options = {.epsilon =
                                 read_epsilon(config, "rms_norm_eps", 1e-6)};
  read_tied_head(config, true, arch);
  arch.ropes = {read_whole_rope(config, arch, 2e6)};
  std::vector<LayerKind> kinds = read_turns(config, arch.layers);
  read_windows(config, kinds);
  const bool bias = config.flag("attention_bias").value_or(false);
  const GatedMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .bias = config.flag("mlp_bias").value_or(false)};
  set_blocks_by(arch, kinds,
                [&](LayerKind kind) { return block(arch, mlp, bias, kind); });
}

}  // namespace llmpress

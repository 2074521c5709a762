// Llama and its close relatives: RMS norms before attention and MLP, rotary
// embedding of whole heads, a gated MLP.
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr std::size_t kDefaultWindow = 4096;
constexpr std::size_t kDefaultMaxWindowLayers = 28;

struct Traits {
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool head_norms = false;             // q_norm and k_norm (Qwen3)
  std::vector<std::size_t> windows{};  // [layers], 0: none
};

BlockSpec block(const Architecture& arch, const Traits& traits,
                Activation activation, float epsilon, std::size_t window) {
  const NormOptions norm{.epsilon = epsilon};
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = traits.qkv_bias,
                          .o_bias = traits.o_bias,
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = {.heads = arch.heads,
                                        .kv_heads = arch.kv_heads,
                                        .head_dim = arch.head_dim,
                                        .value_dim = arch.head_dim,
                                        .scale = attention_scale(arch.head_dim),
                                        .window = window}};
  if (traits.head_norms) {
    attention.qk_norm = NormOptions{.epsilon = epsilon, .unit = arch.head_dim};
  }
  const ValueId x = program.norm(program.stream(), "input_layernorm", norm);
  const ValueId h =
      program.add(program.stream(), self_attention(program, x, attention));
  const ValueId z = program.norm(h, "post_attention_layernorm", norm);
  return program.finish(program.add(h, gated_mlp(program, z,
                                                 {.ffn = arch.ffn,
                                                  .hidden = arch.hidden,
                                                  .activation = activation,
                                                  .bias = traits.mlp_bias})));
}

void finish(const ConfigReader& config, const Traits& traits,
            Architecture& arch) {
  const float epsilon = read_epsilon(config, "rms_norm_eps", 1e-6);
  const Activation activation = read_activation(config, "hidden_act", "silu");
  arch.ropes = {read_rope(config, arch, arch.head_dim)};
  if (arch.ropes[0].dim != arch.head_dim) {
    config.unsupported("partial_rotary_factor", "1");
  }
  arch.final_norm_options = {.epsilon = epsilon};
  read_tied_head(config, false, arch);
  std::vector<BlockSpec> kinds;
  std::vector<std::size_t> windows, kind_of_layer;
  for (std::size_t layer = 0; layer < arch.layers; ++layer) {
    const std::size_t window =
        traits.windows.empty() ? 0 : traits.windows[layer];
    std::size_t kind = 0;
    while (kind < windows.size() && windows[kind] != window) ++kind;
    if (kind == windows.size()) {
      windows.push_back(window);
      kinds.push_back(block(arch, traits, activation, epsilon, window));
    }
    kind_of_layer.push_back(kind);
  }
  set_blocks(arch, std::move(kinds), std::move(kind_of_layer));
}

// `sliding_window`, 0 where it is written as null.
std::size_t read_window(const ConfigReader& config) {
  if (config.is_null("sliding_window")) return 0;
  return require_size(config, "sliding_window", kDefaultWindow);
}

// use_sliding_window and, unless layer_types says otherwise, max_window_layers.
std::vector<std::size_t> read_windows_after_layer(const ConfigReader& config,
                                                  std::size_t layers) {
  std::vector<std::size_t> windows(layers, 0);
  const bool on = config.flag("use_sliding_window").value_or(false);
  const std::size_t first =
      config.size("max_window_layers").value_or(kDefaultMaxWindowLayers);
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back(on && l >= first ? "sliding_attention" : "full_attention");
  }
  types = read_layer_types(config, layers,
                           {"full_attention", "sliding_attention"}, types);
  if (!on) {
    config.ignore("sliding_window");
    return windows;
  }
  const std::size_t window = read_window(config);
  for (std::size_t l = 0; l < layers; ++l) {
    if (types[l] == "sliding_attention") windows[l] = window;
  }
  return windows;
}

}  // namespace

void describe_llama(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  finish(config,
         {.qkv_bias = bias,
          .o_bias = bias,
          .mlp_bias = config.flag("mlp_bias").value_or(false)},
         arch);
}

void describe_mistral(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 131072}, arch);
  const std::size_t window = read_window(config);
  const std::vector<std::string> types = read_layer_types(
      config, arch.layers, {"full_attention", "sliding_attention"},
      std::vector<std::string>(arch.layers, "sliding_attention"));
  std::vector<std::size_t> windows;
  for (const std::string& type : types) {
    windows.push_back(type == "sliding_attention" ? window : 0);
  }
  finish(config, {.windows = windows}, arch);
}

void describe_qwen2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 32768}, arch);
  finish(config,
         {.qkv_bias = true,
          .windows = read_windows_after_layer(config, arch.layers)},
         arch);
}

void describe_qwen3(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 32768, .default_head_dim = 128},
             arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  finish(config,
         {.qkv_bias = bias,
          .o_bias = bias,
          .head_norms = true,
          .windows = read_windows_after_layer(config, arch.layers)},
         arch);
}

}  // namespace llmpress

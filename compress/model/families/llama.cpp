// Llama and its close relatives: RMS norms before attention and MLP, rotary
// embedding of whole heads, a gated MLP.
#include <optional>
#include <string>
#include <utility>
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
  std::optional<PositionScaleOp> query_scale{};
  RopeStyle style = RopeStyle::kHalves;
  double default_epsilon = 1e-6, default_theta = 1e4;
  bool default_tied = false;
};

BlockSpec block(const Architecture& arch, const Traits& traits,
                Activation activation, float epsilon, std::size_t window) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = traits.qkv_bias,
      .o_bias = traits.o_bias,
      .rope =
          RopeOp{.rope = 0, .head_dim = arch.head_dim, .style = traits.style},
      .attention = attention_of(arch, window)};
  if (traits.head_norms) {
    attention.qk_norm = NormOptions{.epsilon = epsilon, .unit = arch.head_dim};
  }
  attention.query_scale = traits.query_scale;
  const GatedMlp mlp{.ffn = arch.ffn,
                     .hidden = arch.hidden,
                     .activation = activation,
                     .bias = traits.mlp_bias};
  return sequential_block(
      {.options = {.epsilon = epsilon}}, program,
      [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return gated_mlp(program, x, mlp); });
}

void finish(const ConfigReader& config, Traits traits, Architecture& arch) {
  const float epsilon =
      read_epsilon(config, "rms_norm_eps", traits.default_epsilon);
  const Activation activation = read_activation(config, "hidden_act", "silu");
  if (arch.ropes.empty()) {
    arch.ropes = {read_whole_rope(config, arch, traits.default_theta)};
  }
  arch.final_norm_options = {.epsilon = epsilon};
  read_tied_head(config, traits.default_tied, arch);
  if (traits.windows.empty()) traits.windows.assign(arch.layers, 0);
  set_blocks_by(arch, traits.windows, [&](std::size_t window) {
    return block(arch, traits, activation, epsilon, window);
  });
}

// use_sliding_window and, unless layer_types says otherwise, max_window_layers.
std::vector<std::size_t> read_windows_after_layer(const ConfigReader& config,
                                                  std::size_t layers,
                                                  std::size_t default_first) {
  const bool on = config.flag("use_sliding_window").value_or(false);
  const std::size_t first =
      config.size("max_window_layers").value_or(default_first);
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back(on && l >= first ? "sliding_attention" : "full_attention");
  }
  types = read_layer_types(config, layers,
                           {"full_attention", "sliding_attention"}, types);
  if (!on) {
    config.ignore("sliding_window");
    return std::vector<std::size_t>(layers, 0);
  }
  return windows_of(types, read_window(config, kDefaultWindow));
}

// One window for all layers. transformers does not look at `layer_types` here.
std::vector<std::size_t> read_window_of_all(const ConfigReader& config,
                                            const Architecture& arch,
                                            std::size_t default_window) {
  const std::size_t window = read_window(config, default_window);
  const std::string type = window == 0 ? "full_attention" : "sliding_attention";
  read_layer_types(config, arch.layers, {type}, {});
  return std::vector<std::size_t>(arch.layers, window);
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
  finish(config, {.windows = read_window_of_all(config, arch, kDefaultWindow)},
         arch);
}

// Mistral with a window in some layers.
void describe_ministral(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 131072, .default_kv_heads = 8},
             arch);
  const std::size_t window = read_window(config, kDefaultWindow);
  const auto types = read_layer_types(
      config, arch.layers, {"full_attention", "sliding_attention"},
      std::vector<std::string>(
          arch.layers, window == 0 ? "full_attention" : "sliding_attention"));
  for (const std::string& type : types) {
    if (type == "sliding_attention" && window == 0) {
      config.invalid("sliding_window", "a size");
    }
  }
  finish(config, {.windows = windows_of(types, window)}, arch);
}

// Mistral with YaRN and Llama 4's attention temperature.
void describe_ministral3(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_max_positions = 262144,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  const auto rope = config.object("rope_parameters");
  if (!rope) config.invalid("rope_parameters", "the rotary embedding");
  rope->ignore("max_position_embeddings");
  arch.ropes = {read_whole_rope(config, arch)};
  const auto slope = rope->number("llama_4_scaling_beta");
  if (!slope) rope->invalid("llama_4_scaling_beta", "a number");
  const auto original =
      static_cast<double>(rope->size("original_max_position_embeddings")
                              .value_or(arch.max_positions));
  finish(config,
         {.windows = read_window_of_all(config, arch, 0),
          .query_scale = PositionScaleOp{.slope = static_cast<float>(*slope),
                                         .floor_positions = original,
                                         .offset = 0},
          .default_epsilon = 1e-5},
         arch);
}

void describe_seed_oss(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_max_positions = 524288,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  finish(config,
         {.qkv_bias = config.flag("attention_bias").value_or(true),
          .o_bias = config.flag("attention_out_bias").value_or(false),
          .mlp_bias = config.flag("mlp_bias").value_or(false)},
         arch);
}

// Neighbouring coordinates turn, here and in Helium.
void describe_ernie4_5(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_max_positions = 131072,
              .default_head_dim = 128,
              .default_kv_heads = 2},
             arch);
  require_flag(config, "use_rmsnorm", true);
  const bool bias = config.flag("use_bias").value_or(false);
  finish(config,
         {.qkv_bias = bias,
          .o_bias = bias,
          .mlp_bias = bias,
          .style = RopeStyle::kPairs,
          .default_epsilon = 1e-5,
          .default_theta = 5e5,
          .default_tied = true},
         arch);
}

void describe_helium(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 2560,
              .default_layers = 24,
              .default_heads = 20,
              .default_vocabulary = 48000,
              .default_ffn = 7040,
              .default_max_positions = 4096,
              .default_head_dim = 128,
              .default_kv_heads = 20},
             arch);
  if (arch.query_width() != arch.hidden) {
    config.invalid("head_dim", "hidden_size / num_attention_heads");
  }
  finish(config,
         {.qkv_bias = config.flag("attention_bias").value_or(false),
          .mlp_bias = config.flag("mlp_bias").value_or(false),
          .style = RopeStyle::kPairs,
          .default_epsilon = 1e-8,
          .default_theta = 1e5},
         arch);
}

// Code World Model (arXiv:2510.02387): every fourth layer from the first on
// sees all.
void describe_cwm(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_max_positions = 131072,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  std::vector<std::string> types;
  for (std::size_t l = 0; l < arch.layers; ++l) {
    types.push_back(l % 4 == 0 ? "full_attention" : "sliding_attention");
  }
  types = read_layer_types(config, arch.layers,
                           {"full_attention", "sliding_attention"}, types);
  const std::size_t window = read_window(config, 8192);
  if (window == 0) config.unsupported("sliding_window", "a size");
  if (!find_rope(config)) {
    config.invalid("rope_parameters", "the rotary embedding");
  }
  finish(config,
         {.mlp_bias = config.flag("mlp_bias").value_or(false),
          .windows = windows_of(types, window),
          .default_epsilon = 1e-5,
          .default_theta = 1e6},
         arch);
}

void describe_qwen2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 32768}, arch);
  finish(config,
         {.qkv_bias = true,
          .windows = read_windows_after_layer(config, arch.layers,
                                              kDefaultMaxWindowLayers)},
         arch);
}

// Qwen2 of a vision-language model: the three positions of a token of text are
// the same, so that it turns as Qwen2 does.
void describe_qwen2_vl(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 32768, .default_kv_heads = 8},
             arch);
  if (const auto rope = find_rope(config)) rope->ignore("mrope_section");
  for (const char* key :
       {"vision_config", "image_token_id", "video_token_id", "vision_token_id",
        "vision_start_token_id", "vision_end_token_id"}) {
    config.ignore(key);
  }
  arch.ropes = {read_whole_rope(config, arch, 1e6)};
  arch.other_places = {{.body = "model.language_model.", .head = "lm_head"}};
  finish(config,
         {.qkv_bias = true,
          .windows = read_windows_after_layer(config, arch.layers, 80),
          .default_epsilon = 1e-5},
         arch);
}

void describe_qwen3_vl_text(const ConfigReader& config, Architecture& arch) {
  if (const auto rope = find_rope(config)) {
    rope->ignore("mrope_section");
    rope->ignore("mrope_interleaved");
  }
  describe_qwen3(config, arch);
}

void describe_qwen3(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 32768, .default_head_dim = 128},
             arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  finish(config,
         {.qkv_bias = bias,
          .o_bias = bias,
          .head_norms = true,
          .windows = read_windows_after_layer(config, arch.layers,
                                              kDefaultMaxWindowLayers)},
         arch);
}

}  // namespace llmpress

#include "compress/model/architecture.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/core/error.h"
#include "formats/model_config.h"

namespace llmpress {
namespace {

constexpr std::size_t kMaxLayers = 100000;

// When attention is limited to a window.
enum class WindowRule {
  kNever,
  kAlways,      // every layer, unless sliding_window is null
  kAfterLayer,  // if use_sliding_window, layers from max_window_layers on
};

// What the Hugging Face class of a model type fixes or assumes.
struct Family {
  std::string_view model_type;
  std::size_t max_positions = 2048;
  std::size_t head_dim = 0;         // 0: hidden / heads
  bool qkv_bias = false;            // always
  bool attention_bias_key = false;  // q, k, v and o if attention_bias
  bool mlp_bias_key = false;
  bool head_norms = false;  // q_norm and k_norm
  WindowRule window = WindowRule::kNever;
};

constexpr std::array kFamilies = {
    Family{.model_type = "llama",
           .attention_bias_key = true,
           .mlp_bias_key = true},
    Family{.model_type = "mistral",
           .max_positions = 131072,
           .window = WindowRule::kAlways},
    Family{.model_type = "qwen2",
           .max_positions = 32768,
           .qkv_bias = true,
           .window = WindowRule::kAfterLayer},
    Family{.model_type = "qwen3",
           .max_positions = 32768,
           .head_dim = 128,
           .attention_bias_key = true,
           .head_norms = true,
           .window = WindowRule::kAfterLayer},
};
constexpr std::size_t kDefaultWindow = 4096;
constexpr std::size_t kDefaultMaxWindowLayers = 28;

[[noreturn]] void invalid(const std::string& what) {
  throw Error(ErrorCode::kInvalidInput, what);
}
[[noreturn]] void unsupported(const std::string& what) {
  throw Error(ErrorCode::kUnsupported, what);
}

const Family& find_family(const ModelConfig& config,
                          const std::string& origin) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (config.model_type == family.model_type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  if (!config.model_type) {
    invalid(origin + ": 'model_type' is missing; known are " + known);
  }
  unsupported(origin + ": model_type '" + *config.model_type +
              "' is not supported; known are " + known);
}

std::size_t require_size(std::optional<std::size_t> value, const char* key,
                         const std::string& origin) {
  if (!value) invalid(origin + ": '" + key + "' is missing");
  if (*value == 0) invalid(origin + ": '" + key + "' is 0");
  return *value;
}

Activation parse_activation(const std::string& name,
                            const std::string& origin) {
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGeluErf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" ||
      name == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (name == "relu") return Activation::kRelu;
  unsupported(origin + ": hidden_act '" + name +
              "' is not supported; known are silu, swish, gelu, gelu_new, "
              "gelu_pytorch_tanh, gelu_fast, relu");
}

double require_positive(std::optional<double> value, const std::string& key,
                        const std::string& origin) {
  if (!value) invalid(origin + ": '" + key + "' is missing");
  if (!(*value > 0)) {
    invalid(origin + ": '" + key + "' is " + std::to_string(*value) +
            ", wanted a positive number");
  }
  return *value;
}

void parse_llama3(const RopeScalingConfig& config, const std::string& origin,
                  RopeConfig& rope) {
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = require_positive(config.factor, "rope_scaling.factor", origin);
  rope.low_freq_factor = require_positive(
      config.low_freq_factor, "rope_scaling.low_freq_factor", origin);
  rope.high_freq_factor = require_positive(
      config.high_freq_factor, "rope_scaling.high_freq_factor", origin);
  if (!(rope.high_freq_factor > rope.low_freq_factor)) {
    invalid(origin +
            ": rope_scaling.high_freq_factor must exceed low_freq_factor");
  }
  rope.original_max_positions =
      require_size(config.original_max_position_embeddings,
                   "rope_scaling.original_max_position_embeddings", origin);
}

// The temperature of attention, YaRN's 0.1 ln(s) + 1 (arXiv:2309.00071, Eq.
// 22).
double yarn_attention(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void parse_yarn(const RopeScalingConfig& config, std::size_t max_positions,
                const std::string& origin, RopeConfig& rope) {
  rope.scaling = RopeScaling::kYarn;
  rope.original_max_positions =
      config.original_max_position_embeddings.value_or(0);
  if (rope.original_max_positions == 0) {
    rope.original_max_positions = max_positions;
  }
  rope.factor = require_positive(config.factor, "rope_scaling.factor", origin);
  const double fast = config.beta_fast.value_or(0);
  const double slow = config.beta_slow.value_or(0);
  rope.beta_fast = fast == 0 ? 32 : fast;
  rope.beta_slow = slow == 0 ? 1 : slow;
  if (!(rope.beta_slow > 0 && rope.beta_fast >= rope.beta_slow)) {
    invalid(origin + ": rope_scaling wants beta_fast >= beta_slow > 0");
  }
  rope.truncate = config.truncate.value_or(true);
  const double mscale = config.mscale.value_or(0);
  const double all_dim = config.mscale_all_dim.value_or(0);
  if (config.attention_factor) {
    rope.attention_factor = require_positive(
        config.attention_factor, "rope_scaling.attention_factor", origin);
  } else if (mscale != 0 && all_dim != 0) {
    rope.attention_factor = yarn_attention(rope.factor, mscale) /
                            yarn_attention(rope.factor, all_dim);
  } else {
    rope.attention_factor = yarn_attention(rope.factor, 1);
  }
}

RopeConfig parse_rope(const ModelConfig& config, std::size_t max_positions,
                      const std::string& origin) {
  RopeConfig rope;
  const RopeScalingConfig scaling =
      config.rope_scaling.value_or(RopeScalingConfig{});
  if (config.rope_theta) rope.theta = *config.rope_theta;
  if (scaling.theta) rope.theta = *scaling.theta;
  if (!(rope.theta > 1)) {
    invalid(origin + ": 'rope_theta' is " + std::to_string(rope.theta) +
            ", wanted above 1");
  }
  for (const auto& partial :
       {config.partial_rotary_factor, scaling.partial_rotary_factor}) {
    if (partial.value_or(1) != 1) {
      unsupported(origin + ": 'partial_rotary_factor' is " +
                  std::to_string(*partial) + "; only 1 is supported");
    }
  }
  const std::string type = scaling.type.value_or("default");
  if (type == "default") return rope;
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor =
        require_positive(scaling.factor, "rope_scaling.factor", origin);
  } else if (type == "llama3") {
    parse_llama3(scaling, origin, rope);
  } else if (type == "yarn") {
    parse_yarn(scaling, max_positions, origin, rope);
  } else {
    unsupported(origin + ": rope_scaling type '" + type +
                "' is not supported; known are default, linear, llama3, yarn");
  }
  return rope;
}

// Which layers see a window only; `layer_types`, if written, decides.
void parse_windows(const ModelConfig& config, const Family& family,
                   const std::string& origin, Architecture& arch) {
  const bool on = family.window == WindowRule::kAlways ||
                  (family.window == WindowRule::kAfterLayer &&
                   config.use_sliding_window.value_or(false));
  if (!on) return;
  if (!config.sliding_window_written) {
    arch.sliding_window = kDefaultWindow;
  } else if (config.sliding_window) {
    arch.sliding_window =
        require_size(config.sliding_window, "sliding_window", origin);
  } else {
    return;
  }
  if (!config.layer_types.empty()) {
    if (config.layer_types.size() != arch.layers) {
      invalid(origin + ": 'layer_types' has " +
              std::to_string(config.layer_types.size()) + " entries for " +
              std::to_string(arch.layers) + " layers");
    }
    for (const std::string& type : config.layer_types) {
      if (type != "full_attention" && type != "sliding_attention") {
        unsupported(origin + ": layer type '" + type +
                    "' is not supported; known are full_attention, "
                    "sliding_attention");
      }
      arch.layer_uses_window.push_back(type == "sliding_attention");
    }
  } else if (family.window == WindowRule::kAfterLayer) {
    const std::size_t first =
        config.max_window_layers.value_or(kDefaultMaxWindowLayers);
    for (std::size_t layer = 0; layer < arch.layers; ++layer) {
      arch.layer_uses_window.push_back(layer >= first);
    }
  }
}

void parse_sizes(const ModelConfig& config, const Family& family,
                 const std::string& origin, Architecture& arch) {
  arch.hidden = require_size(config.hidden_size, "hidden_size", origin);
  arch.ffn =
      require_size(config.intermediate_size, "intermediate_size", origin);
  arch.layers =
      require_size(config.num_hidden_layers, "num_hidden_layers", origin);
  if (arch.layers > kMaxLayers) {
    invalid(origin + ": 'num_hidden_layers' is " + std::to_string(arch.layers));
  }
  arch.heads =
      require_size(config.num_attention_heads, "num_attention_heads", origin);
  arch.kv_heads = require_size(config.num_key_value_heads.value_or(arch.heads),
                               "num_key_value_heads", origin);
  arch.vocabulary = require_size(config.vocab_size, "vocab_size", origin);
  arch.max_positions = require_size(
      config.max_position_embeddings.value_or(family.max_positions),
      "max_position_embeddings", origin);
  if (arch.heads % arch.kv_heads != 0) {
    invalid(origin + ": num_attention_heads " + std::to_string(arch.heads) +
            " is not a multiple of num_key_value_heads " +
            std::to_string(arch.kv_heads));
  }
  if (config.head_dim || family.head_dim != 0) {
    arch.head_dim = require_size(config.head_dim.value_or(family.head_dim),
                                 "head_dim", origin);
  } else if (arch.hidden % arch.heads != 0) {
    invalid(origin + ": hidden_size " + std::to_string(arch.hidden) +
            " is not a multiple of num_attention_heads " +
            std::to_string(arch.heads) + ", and head_dim is not given");
  } else {
    arch.head_dim = arch.hidden / arch.heads;
  }
  if (arch.head_dim % 2 != 0) {
    invalid(origin + ": head_dim " + std::to_string(arch.head_dim) +
            " is odd; rotary embedding needs pairs");
  }
}

// Indices of the Linears of a block.
enum : std::size_t { kQ, kK, kV, kO, kGate, kUp, kDown };

BlockSpec gated_block(const Architecture& arch, const Family& family,
                      bool attention_bias, bool mlp_bias) {
  const std::size_t q = arch.query_width(), kv = arch.kv_width();
  const std::size_t hidden = arch.hidden, ffn = arch.ffn;
  const bool qkv_bias = family.qkv_bias || attention_bias;
  BlockSpec block;
  block.linears = {{"self_attn.q_proj", q, hidden, qkv_bias, 0},
                   {"self_attn.k_proj", kv, hidden, qkv_bias, 0},
                   {"self_attn.v_proj", kv, hidden, qkv_bias, 0},
                   {"self_attn.o_proj", hidden, q, attention_bias, 1},
                   {"mlp.gate_proj", ffn, hidden, mlp_bias, 2},
                   {"mlp.up_proj", ffn, hidden, mlp_bias, 2},
                   {"mlp.down_proj", hidden, ffn, mlp_bias, 3}};
  block.stages = {
      {StageKind::kAttentionInput, "attention_input", {kQ, kK, kV}, hidden},
      {StageKind::kAttentionOutput, "attention_output", {kO}, q},
      {StageKind::kMlpInput, "mlp_input", {kGate, kUp}, hidden},
      {StageKind::kMlpOutput, "mlp_output", {kDown}, ffn}};
  block.attention_norm = "input_layernorm";
  block.mlp_norm = "post_attention_layernorm";
  block.norms = {block.attention_norm, block.mlp_norm};
  if (family.head_norms) {
    block.query_norm = "self_attn.q_norm";
    block.key_norm = "self_attn.k_norm";
    block.norms.push_back(block.query_norm);
    block.norms.push_back(block.key_norm);
  }
  block.scale_groups.push_back(
      {block.attention_norm, std::nullopt, {kQ, kK, kV}});
  // With grouped queries one row of v reaches several columns of o, which
  // would have to share a scale.
  if (arch.kv_heads == arch.heads) block.scale_groups.push_back({"", kV, {kO}});
  block.scale_groups.push_back({block.mlp_norm, std::nullopt, {kGate, kUp}});
  block.scale_groups.push_back({"", kUp, {kDown}});
  return block;
}

}  // namespace

std::string Architecture::block_name(std::size_t layer) const {
  return block_prefix + std::to_string(layer);
}

std::string Architecture::linear_name(std::size_t layer,
                                      std::size_t linear) const {
  return block_name(layer) + "." + block.linears.at(linear).name;
}

bool Architecture::uses_window(std::size_t layer) const {
  return sliding_window.has_value() &&
         (layer_uses_window.empty() || layer_uses_window.at(layer));
}

Architecture parse_architecture(const std::string& config_json,
                                const std::string& origin) {
  const ModelConfig config = parse_model_config(config_json, origin);
  const Family& family = find_family(config, origin);
  Architecture arch;
  arch.model_type = family.model_type;
  parse_sizes(config, family, origin, arch);
  arch.norm_eps = config.rms_norm_eps.value_or(1e-6);
  if (!(arch.norm_eps >= 0)) invalid(origin + ": 'rms_norm_eps' is negative");
  arch.activation =
      parse_activation(config.hidden_act.value_or("silu"), origin);
  arch.tied_head = config.tie_word_embeddings.value_or(false);
  arch.rope = parse_rope(config, arch.max_positions, origin);
  parse_windows(config, family, origin, arch);
  if (!config.bos_token_ids.empty()) arch.bos_id = config.bos_token_ids[0];
  if (!config.eos_token_ids.empty()) arch.eos_id = config.eos_token_ids[0];
  arch.eos_ids = config.eos_token_ids;
  arch.block = gated_block(
      arch, family,
      family.attention_bias_key && config.attention_bias.value_or(false),
      family.mlp_bias_key && config.mlp_bias.value_or(false));
  return arch;
}

}  // namespace llmpress

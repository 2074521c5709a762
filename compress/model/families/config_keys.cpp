#include "compress/model/families/config_keys.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kMaxLayers = 100000;

[[noreturn]] void invalid(const ConfigReader& config, const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", config.origin(), what);
}

constexpr std::pair<std::string_view, Activation> kActivations[] = {
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu", Activation::kGeluErf},
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
    {"relu2", Activation::kRelu2},
};

std::string rope_type(const ConfigReader& rope) {
  const auto older = rope.text("type");
  return rope.text("rope_type").value_or(older.value_or("default"));
}

// As in transformers, the key beside the object comes first.
std::size_t original_positions(const ConfigReader& config,
                               const ConfigReader& rope, std::size_t fallback) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  const std::size_t own = rope.size(kKey).value_or(0);
  const std::size_t outer = config.size(kKey).value_or(0);
  if (outer != 0) return outer;
  return own != 0 ? own : fallback;
}

void read_llama3(const ConfigReader& config, const ConfigReader& rope,
                 RopeConfig& to) {
  to.scaling = RopeScaling::kLlama3;
  to.factor = require_positive(rope, "factor");
  to.low_freq_factor = require_positive(rope, "low_freq_factor");
  to.high_freq_factor = require_positive(rope, "high_freq_factor");
  if (!(to.high_freq_factor >= to.low_freq_factor)) {
    rope.invalid("high_freq_factor", "low_freq_factor or more");
  }
  to.original_max_positions = original_positions(config, rope, 0);
  if (to.original_max_positions == 0) {
    rope.invalid("original_max_position_embeddings", "a size above 0");
  }
}

void read_yarn(const ConfigReader& config, const ConfigReader& rope,
               const Architecture& arch, RopeConfig& to) {
  to.scaling = RopeScaling::kYarn;
  to.original_max_positions =
      original_positions(config, rope, arch.max_positions);
  to.factor = require_positive(rope, "factor");
  const double fast = rope.number("beta_fast").value_or(0);
  const double slow = rope.number("beta_slow").value_or(0);
  to.beta_fast = fast == 0 ? 32 : fast;
  to.beta_slow = slow == 0 ? 1 : slow;
  if (!(to.beta_slow > 0 && to.beta_fast >= to.beta_slow)) {
    rope.invalid("beta_fast", "beta_fast >= beta_slow > 0");
  }
  to.truncate = rope.flag("truncate").value_or(true);
  const double mscale = rope.number("mscale").value_or(0);
  const double all_dim = rope.number("mscale_all_dim").value_or(0);
  if (rope.has("attention_factor")) {
    to.attention_factor = require_positive(rope, "attention_factor");
  } else if (mscale != 0 && all_dim != 0) {
    to.attention_factor =
        yarn_attention(to.factor, mscale) / yarn_attention(to.factor, all_dim);
  } else {
    to.attention_factor = yarn_attention(to.factor, 1);
  }
}

std::vector<double> read_factors(const ConfigReader& rope, std::string_view key,
                                 std::size_t count) {
  const std::vector<double> factors = rope.numbers(key);
  if (factors.size() != count ||
      !std::ranges::all_of(factors, [](double f) { return f > 0; })) {
    rope.invalid(key, formatted("{} positive numbers", count));
  }
  return factors;
}

// arXiv:2402.13753; the attention factor is sqrt(1 + ln s / ln original).
void read_longrope(const ConfigReader& config, const ConfigReader& rope,
                   const Architecture& arch, const RopeDefaults& defaults,
                   RopeConfig& to) {
  to.scaling = RopeScaling::kLongRope;
  to.short_factor = read_factors(rope, "short_factor", to.dim / 2);
  to.long_factor = read_factors(rope, "long_factor", to.dim / 2);
  to.original_max_positions = original_positions(
      config, rope,
      defaults.original_positions == 0 ? arch.max_positions
                                       : defaults.original_positions);
  const auto original = static_cast<double>(to.original_max_positions);
  to.factor = require_positive(
      rope, "factor", static_cast<double>(arch.max_positions) / original);
  if (rope.has("attention_factor")) {
    to.attention_factor = require_positive(rope, "attention_factor");
  } else if (to.factor > 1) {
    to.attention_factor =
        std::sqrt(1 + std::log(to.factor) / std::log(original));
  }
}

}  // namespace

double yarn_attention(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::size_t require_size(const ConfigReader& config, std::string_view key,
                         std::optional<std::size_t> fallback) {
  const auto value = config.size(key);
  if (!value && !fallback) config.invalid(key, "a size");
  const std::size_t size = value.value_or(fallback.value_or(0));
  if (size == 0) config.invalid(key, "a size above 0");
  return size;
}

double require_positive(const ConfigReader& config, std::string_view key,
                        std::optional<double> fallback) {
  const auto value = config.number(key);
  if (!value && !fallback) config.invalid(key, "a number");
  const double number = value.value_or(fallback.value_or(0));
  if (!(number > 0)) config.invalid(key, "a positive number");
  return number;
}

float read_epsilon(const ConfigReader& config, std::string_view key,
                   double fallback) {
  const double epsilon = config.number(key).value_or(fallback);
  if (!(epsilon >= 0)) config.invalid(key, "a number of 0 or more");
  return static_cast<float>(epsilon);
}

float read_softcap(const ConfigReader& config, std::string_view key,
                   double fallback) {
  if (config.is_null(key)) return 0;
  const double cap = config.number(key).value_or(fallback);
  if (!(cap > 0) && cap != fallback) config.invalid(key, "a positive number");
  return static_cast<float>(cap);
}

Activation read_activation(const ConfigReader& config, std::string_view key,
                           std::string_view fallback) {
  const std::string name = config.text(key).value_or(std::string(fallback));
  std::string known;
  for (const auto& [known_name, activation] : kActivations) {
    if (name == known_name) return activation;
    known += (known.empty() ? "" : ", ") + std::string(known_name);
  }
  config.unsupported(key, "one of " + known);
}

void require_flag(const ConfigReader& config, std::string_view key,
                  bool wanted) {
  if (config.flag(key).value_or(wanted) != wanted) {
    config.unsupported(key, wanted ? "true" : "false");
  }
}

std::size_t read_layers(const ConfigReader& config, std::string_view key,
                        std::optional<std::size_t> fallback) {
  const std::size_t layers = require_size(config, key, fallback);
  if (layers > kMaxLayers) config.invalid(key, "fewer layers");
  return layers;
}

namespace {

std::size_t read_kv_heads(const ConfigReader& config, const SizeKeys& keys,
                          std::size_t heads) {
  if (keys.kv_heads != "num_key_value_heads") {
    config.ignore("num_key_value_heads");
  }
  if (keys.kv_heads.empty()) return heads;
  // Where null is written the classes take the number of heads.
  const bool all = keys.default_kv_heads == 0 || config.is_null(keys.kv_heads);
  return require_size(config, keys.kv_heads,
                      all ? heads : keys.default_kv_heads);
}

std::size_t read_head_dim(const ConfigReader& config, const SizeKeys& keys,
                          const Architecture& arch) {
  if (keys.head_dim.empty()) {
    config.ignore("head_dim");
  } else if (config.has(keys.head_dim) ||
             (keys.default_head_dim != 0 && !config.is_null(keys.head_dim))) {
    return require_size(config, keys.head_dim, keys.default_head_dim);
  }
  if (arch.hidden % arch.heads == 0) return arch.hidden / arch.heads;
  invalid(
      config,
      formatted("{} {} is not a multiple of {} {}, and head_dim is not given",
                keys.hidden, arch.hidden, keys.heads, arch.heads));
}

}  // namespace

void read_sizes(const ConfigReader& config, const SizeKeys& keys,
                Architecture& arch) {
  const auto optional = [](std::size_t size) {
    return size == 0 ? std::nullopt : std::optional(size);
  };
  arch.keys = {.hidden = std::string(keys.hidden),
               .ffn = std::string(keys.ffn),
               .layers = std::string(keys.layers),
               .heads = std::string(keys.heads),
               .free_heads = !keys.kv_heads.empty() && !keys.head_dim.empty()};
  arch.hidden =
      require_size(config, keys.hidden, optional(keys.default_hidden));
  if (keys.ffn != "intermediate_size") config.ignore("intermediate_size");
  const std::size_t ffn = keys.default_ffn_factor == 0
                              ? keys.default_ffn
                              : keys.default_ffn_factor * arch.hidden;
  arch.ffn =
      keys.ffn.empty() ? ffn : require_size(config, keys.ffn, optional(ffn));
  arch.layers = read_layers(config, keys.layers, optional(keys.default_layers));
  arch.heads = require_size(config, keys.heads, optional(keys.default_heads));
  arch.kv_heads = read_kv_heads(config, keys, arch.heads);
  arch.vocabulary =
      require_size(config, "vocab_size", optional(keys.default_vocabulary));
  arch.max_positions =
      require_size(config, keys.max_positions, keys.default_max_positions);
  if (arch.heads % arch.kv_heads != 0) {
    invalid(config,
            formatted("{} {} is not a multiple of num_key_value_heads {}",
                      keys.heads, arch.heads, arch.kv_heads));
  }
  arch.head_dim = read_head_dim(config, keys, arch);
}

std::optional<ConfigReader> find_rope(const ConfigReader& config,
                                      std::string_view layer_type) {
  // transformers 5 lets the older key count where both are written.
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    std::optional<ConfigReader> rope = config.object(key);
    if (!rope) continue;
    if (std::string_view(key) == "rope_scaling") {
      config.ignore("rope_parameters");
    }
    if (layer_type.empty() || !rope->has(layer_type)) return rope;
    return rope->object(layer_type);
  }
  return std::nullopt;
}

RopeConfig read_rope(const ConfigReader& config, const Architecture& arch,
                     std::size_t dim, const RopeDefaults& defaults,
                     std::string_view layer_type) {
  return read_rope_object(
      config, find_rope(config, layer_type), arch, dim,
      {.theta = config.number("rope_theta").value_or(defaults.theta),
       .partial =
           config.number("partial_rotary_factor").value_or(defaults.partial),
       .original_positions = defaults.original_positions});
}

RopeConfig read_whole_rope(const ConfigReader& config, const Architecture& arch,
                           double default_theta) {
  const RopeConfig rope =
      read_rope(config, arch, arch.head_dim, {.theta = default_theta});
  if (rope.dim != arch.head_dim) {
    config.unsupported("partial_rotary_factor", "1");
  }
  return rope;
}

RopeConfig read_rope_of_type(const ConfigReader& config,
                             const Architecture& arch,
                             std::string_view layer_type,
                             std::string_view theta_key, double default_theta) {
  const std::optional<ConfigReader> all = config.object("rope_parameters");
  std::optional<ConfigReader> rope =
      all ? all->object(layer_type) : std::nullopt;
  if (layer_type == "full_attention" && config.has("rope_scaling")) {
    if (rope) config.unsupported("rope_scaling", "none beside rope_parameters");
    rope = config.object("rope_scaling");
  }
  const double theta = theta_key.empty()
                           ? default_theta
                           : config.number(theta_key).value_or(default_theta);
  const RopeConfig read =
      read_rope_object(config, rope, arch, arch.head_dim, {.theta = theta});
  if (read.dim != arch.head_dim) {
    config.unsupported("partial_rotary_factor", "1");
  }
  return read;
}

namespace {

// What the type of the object adds to theta and the width.
void read_scaling(const ConfigReader& config, const ConfigReader& rope,
                  const Architecture& arch, std::size_t dim,
                  const RopeDefaults& defaults, RopeConfig& to) {
  const std::string type = rope_type(rope);
  // "mrope" differs for images only; its other keys are read by who knows it.
  if (type == "default" || type == "mrope") return;
  if (type == "linear") {
    to.scaling = RopeScaling::kLinear;
    to.factor = require_positive(rope, "factor");
  } else if (type == "llama3") {
    read_llama3(config, rope, to);
  } else if (type == "yarn") {
    read_yarn(config, rope, arch, to);
  } else if (type == "longrope" || type == "su") {
    read_longrope(config, rope, arch, defaults, to);
  } else if (type == "proportional") {
    to.scaling = RopeScaling::kProportional;
    to.turning_pairs = to.dim / 2;
    to.dim = dim;
    to.factor = require_positive(rope, "factor", 1.0);
  } else {
    rope.unsupported(rope.has("rope_type") ? "rope_type" : "type",
                     "one of default, linear, llama3, yarn, longrope, "
                     "proportional");
  }
}

}  // namespace

RopeConfig read_rope_object(const ConfigReader& config,
                            const std::optional<ConfigReader>& rope,
                            const Architecture& arch, std::size_t dim,
                            const RopeDefaults& defaults) {
  RopeConfig to;
  to.theta = rope ? rope->number("rope_theta").value_or(defaults.theta)
                  : defaults.theta;
  if (!(to.theta > 1)) config.invalid("rope_theta", "a number above 1");
  const double partial =
      rope ? rope->number("partial_rotary_factor").value_or(defaults.partial)
           : defaults.partial;
  if (!(partial > 0 && partial <= 1)) {
    config.invalid("partial_rotary_factor", "a number in (0, 1]");
  }
  to.dim = static_cast<std::size_t>(static_cast<double>(dim) * partial);
  if (to.dim % 2 != 0 || to.dim == 0) {
    invalid(
        config,
        formatted(
            "rotary embedding needs pairs, but turns {} coordinates of a head",
            to.dim));
  }
  if (rope) read_scaling(config, *rope, arch, dim, defaults, to);
  return to;
}

std::vector<std::string> alternating_layer_types(std::size_t layers,
                                                 std::size_t period) {
  std::vector<std::string> types;
  for (std::size_t l = 1; l <= layers; ++l) {
    types.push_back(l % period == 0 ? "full_attention" : "sliding_attention");
  }
  return types;
}

std::vector<std::size_t> windows_of(const std::vector<std::string>& types,
                                    std::size_t window) {
  std::vector<std::size_t> windows;
  for (const std::string& type : types) {
    windows.push_back(type == "sliding_attention" ? window : 0);
  }
  return windows;
}

std::size_t read_window(const ConfigReader& config,
                        std::size_t default_window) {
  if (config.is_null("sliding_window")) return 0;
  if (default_window == 0 && !config.has("sliding_window")) return 0;
  return require_size(config, "sliding_window", default_window);
}

std::vector<std::string> read_layer_types(
    const ConfigReader& config, std::size_t layers,
    const std::vector<std::string>& known,
    const std::vector<std::string>& fallback) {
  std::vector<std::string> types = config.texts("layer_types");
  if (types.empty()) return fallback;
  if (types.size() != layers) {
    invalid(config, formatted("'layer_types' has {} entries for {} layers",
                              types.size(), layers));
  }
  for (const std::string& type : types) {
    if (std::ranges::find(known, type) != known.end()) continue;
    std::string list;
    for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
    fail(ErrorCode::kUnsupported,
         "{}: 'layer_types' has '{}', wanted one of {}", config.origin(), type,
         list);
  }
  return types;
}

void set_blocks(Architecture& arch, std::vector<BlockSpec> kinds,
                std::vector<std::size_t> kind_of_layer) {
  arch.kinds = std::move(kinds);
  arch.kind_of_layer = std::move(kind_of_layer);
}

void set_blocks(Architecture& arch, BlockSpec block) {
  arch.kinds.clear();
  arch.kinds.push_back(std::move(block));
  arch.kind_of_layer.assign(arch.layers, 0);
}

void read_tied_head(const ConfigReader& config, bool fallback,
                    Architecture& arch) {
  arch.tied_head = config.flag("tie_word_embeddings").value_or(fallback);
}

}  // namespace llmpress

#include "formats/model_config.h"

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "formats/json_check.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxSize = std::size_t{1} << 31;

// One JSON object with the place it came from.
class Object {
 public:
  Object(const Json& json, std::string where)
      : json_(json), where_(std::move(where)) {}

  // nullptr if absent or null.
  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  bool contains(const char* key) const { return json_.contains(key); }

  [[noreturn]] void fail(const char* key, const Json& found,
                         const std::string& wanted) const {
    std::string text =
        found.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    throw Error(ErrorCode::kInvalidInput,
                where_ + ": '" + key + "' is " + text + ", wanted " + wanted);
  }

  void get(const char* key, std::optional<std::string>& value) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_string()) fail(key, *json, "a string");
    value = json->get<std::string>();
  }
  void get(const char* key, std::optional<bool>& value) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_boolean()) fail(key, *json, "true or false");
    value = json->get<bool>();
  }
  void get(const char* key, std::optional<double>& value) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_number() || !std::isfinite(json->get<double>())) {
      fail(key, *json, "a finite number");
    }
    value = json->get<double>();
  }
  void get(const char* key, std::optional<std::size_t>& value) const {
    const Json* json = find(key);
    if (json != nullptr) value = to_size(key, *json);
  }
  // A size or a list of sizes.
  void get(const char* key, std::vector<std::size_t>& values) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_array()) {
      values.push_back(to_size(key, *json));
      return;
    }
    for (const Json& item : *json) values.push_back(to_size(key, item));
  }
  void get(const char* key, std::vector<std::string>& values) const {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_array()) fail(key, *json, "a list of strings");
    for (const Json& item : *json) {
      if (!item.is_string()) fail(key, item, "strings only");
      values.push_back(item.get<std::string>());
    }
  }

 private:
  // Some writers turn sizes into floats: 32768.0 counts as 32768.
  std::size_t to_size(const char* key, const Json& json) const {
    const double number = json.is_number() ? json.get<double>() : -1.0;
    if (!(number >= 0 && number <= static_cast<double>(kMaxSize)) ||
        number != std::floor(number)) {
      fail(key, json, "a whole number from 0 to 2^31");
    }
    return static_cast<std::size_t>(number);
  }

  const Json& json_;
  std::string where_;
};

RopeScalingConfig parse_rope(const Json& json, const char* key,
                             const std::string& origin) {
  const std::string where = origin + ": '" + key + "'";
  if (!json.is_object()) {
    throw Error(ErrorCode::kInvalidInput, where + " is not an object");
  }
  const Object object(json, where);
  for (const char* layer_type : {"full_attention", "sliding_attention"}) {
    if (object.contains(layer_type)) {
      throw Error(ErrorCode::kUnsupported,
                  where + ": rope parameters for each layer type ('" +
                      layer_type + "') are not supported");
    }
  }
  RopeScalingConfig rope;
  object.get("type", rope.type);
  object.get("rope_type", rope.type);
  object.get("rope_theta", rope.theta);
  object.get("factor", rope.factor);
  object.get("low_freq_factor", rope.low_freq_factor);
  object.get("high_freq_factor", rope.high_freq_factor);
  object.get("beta_fast", rope.beta_fast);
  object.get("beta_slow", rope.beta_slow);
  object.get("attention_factor", rope.attention_factor);
  object.get("mscale", rope.mscale);
  object.get("mscale_all_dim", rope.mscale_all_dim);
  object.get("partial_rotary_factor", rope.partial_rotary_factor);
  object.get("original_max_position_embeddings",
             rope.original_max_position_embeddings);
  object.get("truncate", rope.truncate);
  return rope;
}

}  // namespace

ModelConfig parse_model_config(const std::string& json_text,
                               const std::string& origin) {
  check_json_object(json_text, origin);
  const Json json = Json::parse(json_text);
  const Object object(json, origin);
  ModelConfig config;
  object.get("model_type", config.model_type);
  object.get("hidden_act", config.hidden_act);
  object.get("hidden_size", config.hidden_size);
  object.get("intermediate_size", config.intermediate_size);
  object.get("num_hidden_layers", config.num_hidden_layers);
  object.get("num_attention_heads", config.num_attention_heads);
  object.get("num_key_value_heads", config.num_key_value_heads);
  object.get("head_dim", config.head_dim);
  object.get("vocab_size", config.vocab_size);
  object.get("max_position_embeddings", config.max_position_embeddings);
  object.get("rms_norm_eps", config.rms_norm_eps);
  object.get("rope_theta", config.rope_theta);
  object.get("partial_rotary_factor", config.partial_rotary_factor);
  object.get("tie_word_embeddings", config.tie_word_embeddings);
  object.get("attention_bias", config.attention_bias);
  object.get("mlp_bias", config.mlp_bias);
  object.get("use_sliding_window", config.use_sliding_window);
  config.sliding_window_written = object.contains("sliding_window");
  object.get("sliding_window", config.sliding_window);
  object.get("max_window_layers", config.max_window_layers);
  object.get("layer_types", config.layer_types);
  object.get("bos_token_id", config.bos_token_ids);
  object.get("eos_token_id", config.eos_token_ids);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (const Json* rope = object.find(key)) {
      config.rope_scaling = parse_rope(*rope, key, origin);
    }
  }
  return config;
}

}  // namespace llmpress

#include "formats/checkpoints/config_check.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/files/json_check.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

std::string shown(const Json& json) {
  std::string text =
      json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

class Check {
 public:
  Check(const Json& config, const std::string& where)
      : config_(config), where_(where) {}

  std::vector<std::string> run() {
    check_rope();
    check_dtype();
    check_layer_types();
    check_quantization();
    check_text_config();
    return std::move(notes_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorCode::kInvalidInput, "{}: {}", where_, what);
  }
  void note(const std::string& what) { notes_.push_back(where_ + ": " + what); }
  // nullptr if absent, null or empty.
  const Json* find(const char* key) const {
    const auto at = config_.find(key);
    const bool empty = at == config_.end() || at->is_null() ||
                       (at->is_structured() && at->empty());
    return empty ? nullptr : &*at;
  }

  // transformers: rope_scaling, where it is not empty, replaces rope_parameters
  // as a whole; within either a key beats the one beside it.
  void check_rope() {
    const Json* const scaling = find("rope_scaling");
    const Json* const parameters = find("rope_parameters");
    if (scaling != nullptr && parameters != nullptr &&
        *scaling != *parameters) {
      note("'rope_scaling' is " + shown(*scaling) +
           " and 'rope_parameters' is " + shown(*parameters) +
           "; the first counts");
    }
    const Json* const rope = scaling != nullptr ? scaling : parameters;
    if (rope == nullptr || !rope->is_object()) return;
    const char* const name =
        scaling != nullptr ? "rope_scaling" : "rope_parameters";
    for (const char* key : {"rope_theta", "partial_rotary_factor"}) {
      const Json* const outer = find(key);
      const auto inner = rope->find(key);
      if (outer == nullptr || inner == rope->end() || *outer == *inner) {
        continue;
      }
      note(formatted("'{}' is {} and in '{}' {}; the latter counts", key,
                     shown(*outer), name, shown(*inner)));
    }
    const auto type = rope->find("type"), rope_type = rope->find("rope_type");
    if (type != rope->end() && rope_type != rope->end() &&
        *type != *rope_type) {
      note(formatted(
          "'{}': 'rope_type' is {} and 'type' is {}; the first counts", name,
          shown(*rope_type), shown(*type)));
    }
  }

  void check_dtype() {
    const Json* const now = find("dtype");
    const Json* const old = find("torch_dtype");
    if (now == nullptr || old == nullptr || *now == *old) return;
    note("'dtype' is " + shown(*now) + " and 'torch_dtype' is " + shown(*old) +
         "; the first counts");
  }

  void check_layer_types() {
    const Json* const types = find("layer_types");
    if (types == nullptr || !types->is_array()) return;
    const Json* const layers = find("num_hidden_layers");
    if (layers != nullptr && *layers != types->size()) {
      refuse(formatted(
          "'layer_types' has {} entries and 'num_hidden_layers' is {}",
          types->size(), shown(*layers)));
    }
    const bool windows =
        std::ranges::count(*types, Json("sliding_attention")) > 0;
    if (!windows) return;
    const auto window = config_.find("sliding_window");
    if (window != config_.end() && window->is_null()) {
      refuse(
          "'layer_types' has sliding_attention and 'sliding_window' is null");
    }
    const Json* const use = find("use_sliding_window");
    if (use != nullptr && *use == false) {
      refuse(
          "'layer_types' has sliding_attention and 'use_sliding_window' is "
          "false");
    }
  }

  void check_quantization() {
    const Json* const now = find("quantization_config");
    const Json* const old = find("compression_config");
    if (now != nullptr && old != nullptr && *now != *old) {
      refuse(
          "'quantization_config' and 'compression_config' are both there and "
          "differ");
    }
  }

  // Keys that both levels of a config with a text model inside have.
  void check_text_config() {
    const Json* const inner = find("text_config");
    if (inner == nullptr || !inner->is_object()) return;
    constexpr std::array kOwnToEach = {"model_type", "architectures", "dtype",
                                       "torch_dtype"};
    for (const auto& [key, value] : inner->items()) {
      const auto outer = config_.find(key);
      if (outer == config_.end() || *outer == value || outer->is_null() ||
          key.starts_with("_") ||
          std::ranges::find(kOwnToEach, key) != kOwnToEach.end()) {
        continue;
      }
      refuse("'" + key + "' is " + shown(*outer) + " and in 'text_config' " +
             shown(value));
    }
  }

  const Json& config_;
  const std::string& where_;
  std::vector<std::string> notes_{};
};

}  // namespace

std::vector<std::string> check_config(const std::string& config_json,
                                      const std::string& where) {
  check_json_object(config_json, where);
  const Json config = Json::parse(config_json);
  return Check(config, where).run();
}

}  // namespace llmpress

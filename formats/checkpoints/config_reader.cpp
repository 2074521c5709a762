#include "formats/checkpoints/config_reader.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "compress/core/formatted.h"
#include "formats/files/json_check.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxSize = std::size_t{1} << 31;
constexpr std::size_t kLongestValue = 80;

// transformers writes infinities as {"__float__": "Infinity"}.
bool is_infinity(const Json& json) {
  return json.is_object() && json.contains("__float__");
}

}  // namespace

struct ConfigReader::State {
  Json json;
  std::string origin{};
  std::set<std::string, std::less<>> read{};
  std::map<std::string, ConfigReader, std::less<>> objects{};

  // nullptr if absent or null.
  const Json* find(std::string_view key) {
    read.emplace(key);
    const auto it = json.find(key);
    return it == json.end() || it->is_null() ? nullptr : &*it;
  }

  [[noreturn]] void refuse(ErrorCode code, std::string_view key,
                           const std::string& wanted) const {
    const auto it = json.find(key);
    std::string text = "missing";
    if (it != json.end()) {
      text = it->dump(-1, ' ', false, Json::error_handler_t::replace);
      if (text.size() > kLongestValue)
        text.resize(kLongestValue - 3), text += "...";
      text = "is " + text;
    }
    fail(code, "{}: '{}' {}{}, wanted {}", origin, key,
         it == json.end() ? "is " : "", text, wanted);
  }

  std::size_t to_size(std::string_view key, const Json& value) const {
    // Some writers turn sizes into floats: 32768.0 counts as 32768.
    const double number = value.is_number() ? value.get<double>() : -1.0;
    if (!(number >= 0 && number <= static_cast<double>(kMaxSize)) ||
        number != std::floor(number)) {
      refuse(ErrorCode::kInvalidInput, key, "a whole number from 0 to 2^31");
    }
    return static_cast<std::size_t>(number);
  }

  double to_number(std::string_view key, const Json& value) const {
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      refuse(ErrorCode::kInvalidInput, key, "a finite number");
    }
    return value.get<double>();
  }
};

ConfigReader::ConfigReader(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

std::string config_place(const std::string& origin) {
  return origin.ends_with(".json") ? origin : origin + "/config.json";
}

ConfigReader ConfigReader::parse(const std::string& json_text,
                                 const std::string& origin) {
  check_json_object(json_text, origin);
  return ConfigReader(std::make_shared<State>(
      State{.json = Json::parse(json_text), .origin = origin}));
}

const std::string& ConfigReader::origin() const { return state_->origin; }

bool ConfigReader::has(std::string_view key) const {
  const auto it = state_->json.find(key);
  return it != state_->json.end() && !it->is_null();
}

bool ConfigReader::is_null(std::string_view key) const {
  const auto it = state_->json.find(key);
  return it != state_->json.end() && it->is_null();
}

bool ConfigReader::is_text(std::string_view key) const {
  const auto it = state_->json.find(key);
  return it != state_->json.end() && it->is_string();
}

std::optional<std::size_t> ConfigReader::size(std::string_view key) const {
  const Json* const value = state_->find(key);
  if (value == nullptr) return std::nullopt;
  return state_->to_size(key, *value);
}

std::optional<double> ConfigReader::number(std::string_view key) const {
  const Json* const value = state_->find(key);
  if (value == nullptr || is_infinity(*value)) return std::nullopt;
  return state_->to_number(key, *value);
}

std::optional<bool> ConfigReader::flag(std::string_view key) const {
  const Json* const value = state_->find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) invalid(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::text(std::string_view key) const {
  const Json* const value = state_->find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) invalid(key, "a string");
  return value->get<std::string>();
}

std::vector<std::size_t> ConfigReader::sizes(std::string_view key) const {
  std::vector<std::size_t> values;
  const Json* const value = state_->find(key);
  if (value == nullptr) return values;
  if (!value->is_array()) return {state_->to_size(key, *value)};
  for (const Json& item : *value) values.push_back(state_->to_size(key, item));
  return values;
}

std::vector<double> ConfigReader::numbers(std::string_view key) const {
  std::vector<double> values;
  const Json* const value = state_->find(key);
  if (value == nullptr) return values;
  if (!value->is_array()) return {state_->to_number(key, *value)};
  for (const Json& item : *value) {
    values.push_back(is_infinity(item) ? HUGE_VAL
                                       : state_->to_number(key, item));
  }
  return values;
}

std::vector<std::string> ConfigReader::texts(std::string_view key) const {
  std::vector<std::string> values;
  const Json* const value = state_->find(key);
  if (value == nullptr) return values;
  if (!value->is_array()) invalid(key, "a list of strings");
  for (const Json& item : *value) {
    if (!item.is_string()) invalid(key, "strings only");
    values.push_back(item.get<std::string>());
  }
  return values;
}

std::optional<ConfigReader> ConfigReader::object(std::string_view key) const {
  const Json* const value = state_->find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) invalid(key, "an object");
  const auto known = state_->objects.find(key);
  if (known != state_->objects.end()) return known->second;
  ConfigReader reader(std::make_shared<State>(State{
      .json = *value, .origin = formatted("{}: '{}'", state_->origin, key)}));
  state_->objects.emplace(std::string(key), reader);
  return reader;
}

void ConfigReader::ignore(std::string_view key) const {
  state_->read.emplace(key);
}

std::vector<std::string> ConfigReader::unread() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : state_->json.items()) {
    const auto nested = state_->objects.find(key);
    if (nested != state_->objects.end()) {
      for (const std::string& name : nested->second.unread()) {
        names.push_back(key + "." + name);
      }
    } else if (!value.is_null() && value != false &&
               !state_->read.contains(key)) {
      names.push_back(key);
    }
  }
  return names;
}

void ConfigReader::invalid(std::string_view key,
                           const std::string& wanted) const {
  state_->refuse(ErrorCode::kInvalidInput, key, wanted);
}

void ConfigReader::unsupported(std::string_view key,
                               const std::string& wanted) const {
  state_->refuse(ErrorCode::kUnsupported, key, wanted);
}

}  // namespace llmpress

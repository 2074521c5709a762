#include "formats/linears/quantization_config_json.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"

namespace llmpress::quantization_json {

[[noreturn]] void refuse(const std::string& where, const std::string& what,
                         ErrorCode code) {
  fail(code, "{}: quantization_config: {}", where, what);
}

const json* find(const json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

bool bool_at(const json& object, const char* key, bool otherwise,
             const std::string& where) {
  const json* const value = find(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean())
    refuse(where, formatted("{} is not a boolean", key));
  return value->get<bool>();
}

std::string string_at(const json& object, const char* key,
                      const std::string& otherwise, const std::string& where) {
  const json* const value = find(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) refuse(where, formatted("{} is not a string", key));
  return value->get<std::string>();
}

std::size_t size_of_value(const json& value, const char* key,
                          const std::string& where) {
  if (value.is_number_integer()) {
    if (value == -1) return 0;
    if (value >= 0 && value <= 2147483648LL) return value.get<std::size_t>();
  }
  refuse(where, formatted("{} is not a size", key));
}

std::size_t size_at(const json& object, const char* key, std::size_t otherwise,
                    const std::string& where) {
  const json* const value = find(object, key);
  return value == nullptr ? otherwise : size_of_value(*value, key, where);
}

float float_at(const json& object, const char* key, const std::string& where) {
  const json* const value = find(object, key);
  if (value == nullptr) return 0;
  if (!value->is_number()) refuse(where, formatted("{} is not a number", key));
  const double number = value->get<double>();
  if (!(number >= 0 && number <= 1e30)) {
    refuse(where, formatted("{} is out of range", key));
  }
  return static_cast<float>(number);
}

std::vector<std::string> strings_at(const json& object, const char* key,
                                    const std::string& where) {
  std::vector<std::string> strings;
  const json* const value = find(object, key);
  if (value == nullptr) return strings;
  if (!value->is_array()) refuse(where, formatted("{} is not a list", key));
  for (const json& item : *value) {
    if (!item.is_string()) refuse(where, formatted("{} holds no strings", key));
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

const json& require_object(const json& value, const std::string& what,
                           const std::string& where) {
  if (!value.is_object()) refuse(where, what + " is not an object");
  return value;
}

void read_block(const json& object, const char* key, QuantArgs& args,
                const std::string& where) {
  const json* const block = find(object, key);
  if (block == nullptr) return;
  if (!block->is_array() || block->size() != 2) {
    refuse(where, formatted("{} is not [rows, cols]", key));
  }
  args.block_rows = size_of_value((*block)[0], key, where);
  args.block_cols = size_of_value((*block)[1], key, where);
}

}  // namespace llmpress::quantization_json

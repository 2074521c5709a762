// Typed access to a quantization_config, for those who read one. Absent and
// null are the same. All throw Error(kInvalidInput) with `where` in front for a
// value of another type.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "formats/linears/quantization_config.h"

namespace llmpress::quantization_json {

using json = nlohmann::json;

[[noreturn]] void refuse(const std::string& where, const std::string& what,
                         ErrorCode code = ErrorCode::kInvalidInput);

const json* find(const json& object, const char* key);
bool bool_at(const json& object, const char* key, bool otherwise,
             const std::string& where);
std::string string_at(const json& object, const char* key,
                      const std::string& otherwise, const std::string& where);
// A size up to 2^31; -1 reads as 0 ("one for the whole row").
std::size_t size_of_value(const json& value, const char* key,
                          const std::string& where);
std::size_t size_at(const json& object, const char* key, std::size_t otherwise,
                    const std::string& where);
// 0..1e30; absent: 0.
float float_at(const json& object, const char* key, const std::string& where);
std::vector<std::string> strings_at(const json& object, const char* key,
                                    const std::string& where);
const json& require_object(const json& value, const std::string& what,
                           const std::string& where);
// [rows, cols].
void read_block(const json& object, const char* key, QuantArgs& args,
                const std::string& where);

}  // namespace llmpress::quantization_json

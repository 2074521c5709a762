#include "formats/quantization_config.h"

#include "formats/json_check.h"

namespace llmpress {

const LinearScheme& QuantizationConfig::scheme_of(std::string_view) const {
  static const LinearScheme none;
  return none;
}

const LinearExtension& QuantizationConfig::extension_of(
    std::string_view linear) const {
  static const LinearExtension none;
  const auto at = extensions.find(linear);
  return at == extensions.end() ? none : at->second;
}

QuantizationConfig parse_quantization_config(const std::string& config_json,
                                             const std::string& where) {
  check_json_object(config_json, where);
  return {};
}

}  // namespace llmpress

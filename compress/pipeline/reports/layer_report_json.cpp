#include "compress/pipeline/reports/layer_report_json.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"

namespace llmpress {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LayerReport, name, method, format, out, in,
                                   bytes, bits_per_weight, sparsity,
                                   output_error, relative_error, calibrated,
                                   calibration_tokens, damping_fraction,
                                   outlier_columns, seconds, notes)

namespace {

// A count that is written 1e74 is none.
void check_counts(const nlohmann::json& layer, const std::string& origin) {
  for (const char* key :
       {"out", "in", "bytes", "calibration_tokens", "outlier_columns"}) {
    if (layer.at(key).is_number_unsigned()) continue;
    fail(ErrorCode::kCorruptFile, "{}: '{}' is not a whole number", origin,
         key);
  }
}

}  // namespace

std::string layers_to_json(const std::vector<LayerReport>& layers) {
  return nlohmann::json(layers).dump(1, ' ', false,
                                     nlohmann::json::error_handler_t::replace);
}

std::vector<LayerReport> layers_from_json(const std::string& text,
                                          const std::string& origin) {
  try {
    const auto json = nlohmann::json::parse(text);
    for (const auto& layer : json) check_counts(layer, origin);
    return json.get<std::vector<LayerReport>>();
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCorruptFile, "{}: {}", origin, e.what());
  }
}

}  // namespace llmpress

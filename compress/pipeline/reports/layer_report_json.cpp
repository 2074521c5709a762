#include "compress/pipeline/reports/layer_report_json.h"

#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"

namespace llmpress {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LayerReport, name, method, format, out, in,
                                   bytes, bits_per_weight, sparsity,
                                   output_error, relative_error, calibrated,
                                   calibration_tokens, damping_fraction,
                                   outlier_columns, seconds, notes)

std::string layers_to_json(const std::vector<LayerReport>& layers) {
  return nlohmann::json(layers).dump(1, ' ', false,
                                     nlohmann::json::error_handler_t::replace);
}

std::vector<LayerReport> layers_from_json(const std::string& text,
                                          const std::string& origin) {
  try {
    return nlohmann::json::parse(text).get<std::vector<LayerReport>>();
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCorruptFile, "{}: {}", origin, e.what());
  }
}

}  // namespace llmpress

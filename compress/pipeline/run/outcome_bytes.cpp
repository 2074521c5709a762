#include "compress/pipeline/run/outcome_bytes.h"

#include <cstdint>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/core/linear_bytes.h"
#include "compress/core/ranks.h"
#include "compress/pipeline/reports/layer_report_json.h"

namespace llmpress {

std::string to_bytes(const LinearWeights& weights, const LayerReport& layer) {
  const std::string report = layers_to_json({layer});
  const std::uint64_t size = report.size();
  return bytes_of(std::span(&size, 1)) + report + to_bytes(weights);
}

LinearOutcome outcome_from_bytes(std::string_view bytes) {
  std::uint64_t size = 0;
  if (bytes.size() >= sizeof(size)) {
    size = values_of<std::uint64_t>(bytes.substr(0, sizeof(size))).front();
    bytes.remove_prefix(sizeof(size));
  }
  if (size == 0 || size > bytes.size()) {
    fail(ErrorCode::kCorruptFile, "a Linear's report is not what was sent");
  }
  const std::string report(bytes.substr(0, size));
  const auto layers = layers_from_json(report, "the report of a Linear");
  if (layers.size() != 1) {
    fail(ErrorCode::kCorruptFile, "{} reports of one Linear", layers.size());
  }
  return {.weights = linear_from_bytes(bytes.substr(size)),
          .report = layers.front()};
}

}  // namespace llmpress

// What became of a Linear, on its way from the rank that compressed it, or to a
// run that goes on.
#pragma once

#include <string>
#include <string_view>

#include "compress/pipeline/run/linear_compressor.h"

namespace llmpress {

std::string to_bytes(const LinearWeights& weights, const LayerReport& report);
inline std::string to_bytes(const LinearOutcome& outcome) {
  return to_bytes(outcome.weights, outcome.report);
}
// Throws Error(kCorruptFile) for bytes that to_bytes() did not make.
LinearOutcome outcome_from_bytes(std::string_view bytes);

}  // namespace llmpress

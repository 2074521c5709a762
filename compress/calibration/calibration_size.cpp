#include "compress/calibration/calibration_size.h"

#include <algorithm>

#include "compress/calibration/calibration_states.h"
#include "compress/core/checked.h"

namespace llmpress {

CalibrationSize size_of(const CalibrationSet& calibration) {
  CalibrationSize size{.tokens = calibration.tokens()};
  for (const auto& sequence : calibration.sequences) {
    size.sequence_tokens = std::max(size.sequence_tokens, sequence.size());
  }
  return size;
}

CalibrationSize size_of(const std::optional<CalibrationSet>& calibration) {
  return calibration ? size_of(*calibration) : CalibrationSize{};
}

CalibrationSize share_of_rank(CalibrationSize all, std::size_t ranks) {
  if (all.tokens == 0 || ranks == 1) return all;
  const std::size_t batch = tokens_of_batch(all.sequence_tokens);
  all.tokens = std::min(all.tokens,
                        ceil_div(ceil_div(all.tokens, batch), ranks) * batch);
  return all;
}

}  // namespace llmpress

// How much a calibration set makes a run hold.
#pragma once

#include <cstddef>
#include <optional>

#include "compress/calibration/calibration_text.h"

namespace llmpress {

// What calibration makes blocks keep: all tokens, and those of the longest
// sequence.
struct CalibrationSize {
  std::size_t tokens = 0, sequence_tokens = 0;
};

CalibrationSize size_of(const std::optional<CalibrationSet>& calibration);
CalibrationSize size_of(const CalibrationSet& calibration);
// Of the batches that one of so many ranks holds at most.
CalibrationSize share_of_rank(CalibrationSize all, std::size_t ranks);

}  // namespace llmpress

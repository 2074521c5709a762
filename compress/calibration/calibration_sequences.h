// Calibration sequences by themselves, for who learns from some at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/core/matrix.h"
#include "compress/core/rng.h"

namespace llmpress {

// Sequences in an order drawn by seed, all of them before one comes again.
class SequenceOrder {
 public:
  SequenceOrder(std::size_t count, std::size_t batch, std::uint64_t seed);
  std::span<const std::size_t> draw();

 private:
  Rng rng_;
  std::vector<std::size_t> order_;
  std::size_t batch_, next_ = 0;
};

// Where a calibration sequence lies.
struct SequenceRows {
  std::size_t batch = 0, first = 0, rows = 0;
};

std::vector<SequenceRows> sequences_of(const CalibrationStates& states);

// Rows of `chosen` sequences one after another: of matrices [batches], and of
// the states that run into a block.
MatrixF gather(std::span<const SequenceRows> chosen,
               std::span<const MatrixF> batches);
BlockState gather_state(std::span<const SequenceRows> chosen,
                        const CalibrationStates& states);

}  // namespace llmpress

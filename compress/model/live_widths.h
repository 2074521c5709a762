// How many numbers a block holds of a token while it runs: what calibration
// keeps between stages, and the most within one.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/model/program.h"

namespace llmpress {

// In float32 numbers a token; a routed value counts once for each expert that a
// token is sent to.
struct LiveWidths {
  // [stages]: when the stage begins; the last: behind the block.
  std::vector<std::size_t> at_stage{};
  // [stages + 1]: at most while what leads to the stage runs (the first: before
  // any Linear; the last: of the last stage), inputs and outputs of an operation
  // together.
  std::vector<std::size_t> towards{};
};

LiveWidths live_widths(const BlockSpec& block);

}  // namespace llmpress

// Which inputs of a block's stages calibration keeps of all its tokens.
#pragma once

#include <cstddef>

#include "compress/model/architecture.h"

namespace llmpress {

// What calibration may keep between two stages for the sake of a wide input.
inline constexpr std::size_t kKeptInputBytes = std::size_t{512} << 20;

class KeptInputs {
 public:
  // Of states in a file, which bring in a batch at a time: none that is wide.
  KeptInputs() = default;
  // `tokens`: of a rank, in all streams, with their states in memory.
  explicit KeptInputs(std::size_t tokens) : tokens_(tokens) {}

  // Whether the stage's input is made batch by batch, and once more when the
  // stage runs: it is wider than the residual stream (an MLP's inner width, the
  // inputs of experts), and all tokens' would not fit into kKeptInputBytes. The
  // numbers are the same either way.
  bool remakes(const BlockSpec& block, std::size_t stage,
               const Architecture& arch) const;

 private:
  std::size_t tokens_ = 0;  // 0: in a file
};

}  // namespace llmpress

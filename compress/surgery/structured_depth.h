// Which blocks a model can do without.
//
//   cosine      the lowest influence goes, 1 - mean cos(x, y) of the stream
//               before and after the block (pruning/block_influence.h): one
//               pass over the calibration set
//   perplexity  the block without which the calibration text is predicted best
//               goes, then the next of those that are left, and so on: for
//               every removal the tail of the model runs once for each block,
//               over kDepthProbeTokens tokens; one block in memory at a time
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compress/surgery/unit_choice.h"

namespace llmpress {

inline constexpr std::size_t kDepthProbeTokens = 4096;

struct RemovedBlock {
  std::size_t layer = 0;
  std::string reason{};  // "influence 0.0312"
};

struct DepthChoice {
  std::vector<std::size_t> kept{};      // ascending
  std::vector<RemovedBlock> removed{};  // in the order in which they went
};

// `learned`: what learned gates say of each block, for kLearned.
DepthChoice choose_depth(const UnitChoiceJob& job, std::size_t kept,
                         std::span<const double> learned = {});

}  // namespace llmpress

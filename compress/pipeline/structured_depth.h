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

#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/cpu.h"
#include "compress/model/architecture.h"
#include "compress/pipeline/calibration_text.h"
#include "formats/checkpoint.h"
#include "pruning/prune_config.h"

namespace llmpress {

inline constexpr std::size_t kDepthProbeTokens = 4096;

struct DepthJob {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const PruneConfig* config = nullptr;
  const CalibrationSet* calibration = nullptr;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  Progress progress{};
};

struct RemovedBlock {
  std::size_t layer = 0;
  std::string reason{};  // "influence 0.0312"
};

struct DepthChoice {
  std::vector<std::size_t> kept{};      // ascending
  std::vector<RemovedBlock> removed{};  // in the order in which they went
};

DepthChoice choose_depth(const DepthJob& job, std::size_t kept);

}  // namespace llmpress

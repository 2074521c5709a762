// What compressing a model takes of memory at its peak, before it runs: the sum
// of what the code holds, phase by phase, with the sizes that the plan, the
// program of the blocks and the calibration set fix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "compress/calibration/calibration_size.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/input_stats.h"
#include "compress/model/architecture.h"
#include "compress/model/model_check.h"

namespace llmpress {

struct MemoryJob {
  const StagePlan* plan = nullptr;
  const Architecture* arch = nullptr;  // of the checkpoint
  const Architecture* reduced =
      nullptr;                       // after structured pruning; null: none
  ModelSize stored{};                // of the checkpoint
  std::size_t largest_tensor = 0;    // of the checkpoint, bytes
  CalibrationSize calibration{};     // of the recipe; none: 0
  std::size_t evaluated_tokens = 0;  // of a window; 0: nothing is evaluated
  std::size_t scored_tokens = 0;     // of all windows
  std::size_t variants = 1;          // that are evaluated beside the base
  // Tensors that stay as they are go from file to file; else by way of a copy.
  bool copies_in_files = false;
};

// Models whose stored weights add up to no more than this are compared in one
// pass; larger ones one by one beside the base.
inline constexpr std::size_t kCompareAtOnceBytes = std::size_t{2} << 30;

// Bytes.
struct MemoryNeed {
  // With calibration states and evaluated models in memory.
  std::size_t in_memory = 0;
  std::size_t evaluating = 0;  // with the models in memory
  // With all states but one batch in a file, and evaluated models streamed if
  // they take the most.
  std::size_t spilled = 0;
  std::size_t scratch = 0;  // of that file
  std::string phase{};      // that takes the most when spilled
};

MemoryNeed memory_need(const MemoryJob& job);

// Groups (experts) of a stage whose statistics are collected together: no more
// than take the room of the block's weights in 16 bits.
std::size_t groups_at_once(const BlockSpec& block, const StageSpec& stage,
                           const StatsNeeds& needs);

}  // namespace llmpress

// The rounding of a block's Linears, learned together (SignRound,
// arXiv:2309.05516, Algorithm 1): signed gradient descent on
//
//   L = mean (block_q(X_q) - block(X))^2
//
// where X is the block's input in the uncompressed model and X_q that in the
// compressed one, what the blocks before it, rounded, give. A step sees
// `batch_size` calibration sequences, drawn by seed, each once before any comes
// again. At the end the whole calibration set decides between what was learned
// and rounding to nearest. Cost of a step: a forward and a backward pass of the
// block on its sequences.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

struct BlockRoundingJob {
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  std::size_t layer = 0;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
  // The block as learning starts, of Linears that method `start` made; null:
  // all are rounded to nearest.
  const BlockWeights* start = nullptr;
};

struct BlockRounding {
  // [BlockSpec::linears]; none where another method, or none, treats the
  // Linear.
  std::vector<std::optional<GroupedIntWeight>> weights{};
  // L over the whole calibration set, rounded to nearest and as learned.
  double loss_before = 0, loss_after = 0;
};

// Whether a Linear of the block, or of any, learns its rounding in its block.
bool wants_block_rounding(const StagePlan& plan, const Architecture& arch,
                          std::size_t layer);
bool wants_block_rounding(const StagePlan& plan, const Architecture& arch);

// `plan` with the Linears of the block that learn treated by what their method
// starts from; none if they all start from rounding to nearest.
std::optional<StagePlan> start_plan(const StagePlan& plan,
                                    const Architecture& arch,
                                    std::size_t layer);

// `inputs` and `reference` hold X_q and X. Throws Error(kInvalidArgument) where
// Linears of one block learn by different settings, Error(kUnsupported) for a
// Linear that is pruned as well or whose input is rotated at run time.
BlockRounding learn_block_rounding(const BlockRoundingJob& job,
                                   const DenseBlock& block,
                                   const CalibrationStates& inputs,
                                   const CalibrationStates& reference);

}  // namespace llmpress

// Linears of a block that learn together how they are rounded, by a method that
// learns in blocks (block_weight.h): descent on
//
//   L = mean (block_q(X_q) - block(X))^2
//
// where X is the block's input in the uncompressed model and X_q that in the
// compressed one, what the blocks before it, rounded, give. A step sees
// `batch_size` calibration sequences, drawn by seed, each once before any comes
// again. Where the method moves scales, those between norms and the Linears
// behind them learn too (norm_transformation.h). At the end the whole
// calibration set decides between what was learned and what learning started
// from. Cost of a step: a forward and a backward pass of the block on its
// sequences.
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

// Scales that moved from a norm into the Linears behind it.
struct MovedScales {
  const ScaleGroup* group = nullptr;
  std::vector<float> scales{};  // [in]
};

struct BlockRounding {
  // [BlockSpec::linears]; none where another method, or none, treats the
  // Linear.
  std::vector<std::optional<GroupedIntWeight>> weights{};
  // To be folded into the block, for which the weights are made.
  std::vector<MovedScales> moved{};
  // L over the whole calibration set, at the start and as learned.
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

// Bytes that learning the largest block takes beside it and the calibration
// states, with calibration sequences of so many tokens; 0 where none learns.
std::size_t block_rounding_bytes(const StagePlan& plan,
                                 const Architecture& arch,
                                 std::size_t sequence_tokens);

// `inputs` and `reference` hold X_q and X. Throws Error(kInvalidArgument) where
// Linears of one block learn by different methods or settings, Error(kUnsupported) for a
// Linear that is pruned as well or whose input is rotated at run time.
BlockRounding learn_block_rounding(const BlockRoundingJob& job,
                                   const DenseBlock& block,
                                   const CalibrationStates& inputs,
                                   const CalibrationStates& reference);

}  // namespace llmpress

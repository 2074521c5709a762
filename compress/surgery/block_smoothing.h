// Moves scales between the neighbours of a block before its Linears are
// rounded: AWQ and SmoothQuant over the scale groups that the architecture
// describes. The function of the block stays the same.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/calibration_states.h"
#include "compress/calibration/dense_block.h"
#include "compress/calibration/stage_plan.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// Whether some scale group of the architecture is to be smoothed.
bool wants_smoothing(const StagePlan& plan, const Architecture& arch,
                     std::size_t layer);

// A sentence for each group of Linears behind one input whose scales the plan
// would move, but does not: they are not all rounded by one stage.
std::vector<std::string> unscaled_groups(const StagePlan& plan,
                                         const Architecture& arch);

// What the norm multiplies by, and its bias, over s [width].
void unscale_norm_in_place(NormWeights& norm, std::span<const float> s);
// Multiplies the columns of the group's consumers by s [in], and divides what is
// in front of them by it: a norm, or rows of a Linear.
void fold_scales(const ScaleGroup& group, std::span<const float> s,
                 DenseBlock& block);

// Tokens that scales are tried on. More change nothing that can be measured: KL
// of a 3.7M model at 4 bits 0.0119 with 1024, 2048, 4096 and 32768 tokens, at 3
// bits 0.0515, 0.0515, 0.0510, 0.0511.
inline constexpr std::size_t kSmoothingTokens = 1024;

struct SmoothingJob {
  const Architecture* arch = nullptr;
  const StagePlan* plan = nullptr;
  std::size_t layer = 0;
  Isa isa = best_isa();
  ThreadPool* pool = nullptr;
};

// Changes norms and weights of `block` in place. `states` holds the inputs of
// the block and is left as it was. Returns a line for each group: what was
// scaled and by how much the error of rounding fell.
std::vector<std::string> smooth_block_in_place(const SmoothingJob& job,
                                               DenseBlock& block,
                                               const CalibrationStates& states);

}  // namespace llmpress

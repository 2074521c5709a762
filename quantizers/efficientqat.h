// EfficientQAT's first phase, Block-AP (Chen et al. 2024, arXiv:2407.11062,
// section 3.2): all weights of a block's Linears, and the steps and zero points
// of their grids, learn together by AdamW on the block's output, rounding
// passed straight through (learned_grid.h).
//
// Differs from the paper: the learning rates are in units of the weight's mean
// grid step, so that they say how far a weight can go, whatever the model, and
// fall linearly to 0. The second phase, which learns the steps through the whole
// model, is a `train` or `distill` stage behind `quantize`.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

QuantizerMethod efficientqat_method();

}  // namespace llmpress

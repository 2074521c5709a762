// The softmax of a row as the kernels of losses take it.
#pragma once

#include <span>

#include "compress/kernels/loss_kernels.h"

namespace llmpress {

// `exps`, of the size of z, is written and stays part of the result, as z does.
// NaN where z has one, a plus infinity, or nothing above minus infinity.
SoftmaxRow row_softmax(std::span<const float> z, std::span<float> exps,
                       const LossKernels& kernels);

}  // namespace llmpress

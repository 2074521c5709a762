// The softmax of a row as the kernels of losses take it.
#pragma once

#include <span>

#include "compress/kernels/loss_kernels.h"

namespace llmpress {

struct RowSoftmax {
  ScaledExp probability;  // of a logit: exp(z - largest) / sum
  double log_sum = 0;     // log sum_j exp(z_j)

  ScaledExp times(double factor) const {
    return {probability.shift,
            static_cast<float>(double{probability.factor} * factor)};
  }
};

// NaN where z has one, a plus infinity, or nothing above minus infinity.
RowSoftmax row_softmax(std::span<const float> z, const LossKernels& kernels);

}  // namespace llmpress

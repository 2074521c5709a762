#include "distill/losses/row_softmax.h"

#include <cassert>
#include <cmath>

namespace llmpress {

SoftmaxRow row_softmax(std::span<const float> z, std::span<float> exps,
                       const LossKernels& kernels) {
  assert(exps.size() == z.size());
  const float max = kernels.max(z.data(), z.size());
  const double sum = kernels.exp_and_sum(z.data(), z.size(), max, exps.data());
  return {z.size(), z.data(), exps.data(), max, sum, std::log(sum)};
}

}  // namespace llmpress

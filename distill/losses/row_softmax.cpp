#include "distill/losses/row_softmax.h"

#include <cmath>

namespace llmpress {

RowSoftmax row_softmax(std::span<const float> z, const LossKernels& kernels) {
  const float max = kernels.max(z.data(), z.size());
  const double sum = kernels.sum_exp(z.data(), z.size(), max);
  return {{max, static_cast<float>(1 / sum)}, double{max} + std::log(sum)};
}

}  // namespace llmpress

// Stochastic gradient descent with momentum and weight decay, as
// torch.optim.SGD without dampening:
//   d <- g + decay w;  b <- momentum b + d (b = d at the first step)
//   w <- w - lr b, or with Nesterov's momentum w - lr (d + momentum b)
#pragma once

#include <span>
#include <vector>

#include "compress/core/parallel.h"

namespace llmpress {

struct SgdConfig {
  double momentum = 0;  // 0: no state
  bool nesterov = false;
};

// Of one tensor; empty before the first step.
struct SgdState {
  std::vector<float> momentum{};
};

// The gradient is taken times `gradient_factor`, the factor of clipping. Throws
// Error(kInvalidInput) for a state of another size.
void sgd_step(const SgdConfig& config, float learning_rate, float weight_decay,
              float gradient_factor, std::span<const float> gradient,
              std::span<float> weight, SgdState& state, ThreadPool& pool);

}  // namespace llmpress

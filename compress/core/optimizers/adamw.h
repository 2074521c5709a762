// Adam with decoupled weight decay (arXiv:1711.05101, Algorithm 2), with the
// order of operations and the bias correction of torch.optim.AdamW:
//   w <- w (1 - lr decay)
//   m <- m + (1 - beta1) (g - m),  v <- beta2 v + (1 - beta2) g^2
//   w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// One pass: 28 bytes of memory traffic a weight.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/parallel.h"

namespace llmpress {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
};

// Of one tensor; empty before the first step.
struct AdamWState {
  std::vector<float> first_moment{}, second_moment{};
};

// `step` counts from 1. The gradient is taken times `gradient_factor`, the
// factor of clipping. Throws Error(kInvalidInput) for a state of another size.
void adamw_step(const AdamWConfig& config, std::size_t step,
                float learning_rate, float weight_decay, float gradient_factor,
                std::span<const float> gradient, std::span<float> weight,
                AdamWState& state, ThreadPool& pool);

}  // namespace llmpress

// Divergences of two rows of logits, with the gradient of the first.
#pragma once

#include <span>

#include "compress/kernels/loss_kernels.h"

namespace llmpress {

// With q = softmax(z), p = softmax(t): returns KL(p || q) and adds
// factor (q - p) to g. All of one size.
double forward_divergence(std::span<const float> z, std::span<const float> t,
                          double factor, std::span<float> g,
                          const LossKernels& kernels);

// Returns KL(q || p) and adds factor q_i (log(q_i / p_i) - KL) to g. `scratch`
// of the same size is overwritten.
double reverse_divergence(std::span<const float> z, std::span<const float> t,
                          double factor, std::span<float> g,
                          std::span<float> scratch, const LossKernels& kernels);

// With m = beta p + (1 - beta) q, 0 < beta < 1: returns
// beta KL(p || m) + (1 - beta) KL(q || m) and adds
// factor (1 - beta) q_i (log(q_i / m_i) - KL(q || m)) to g.
double mixture_divergence(std::span<const float> z, std::span<const float> t,
                          double beta, double factor, std::span<float> g,
                          std::span<float> scratch, const LossKernels& kernels);

}  // namespace llmpress

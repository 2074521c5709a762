// Divergences of two rows of logits, with the gradient of the first.
#pragma once

#include <span>

#include "compress/kernels/loss_kernels.h"

namespace llmpress {

// With q of the student and p of the teacher: returns KL(p || q) and adds
// factor (q - p) to g.
double forward_divergence(const SoftmaxRow& q, const SoftmaxRow& p,
                          double factor, std::span<float> g,
                          const LossKernels& kernels);

// Returns KL(q || p) and adds factor q_i (log(q_i / p_i) - KL) to g. `scratch`
// of the same size is overwritten.
double reverse_divergence(const SoftmaxRow& q, const SoftmaxRow& p,
                          double factor, std::span<float> g,
                          std::span<float> scratch, const LossKernels& kernels);

// With m = beta p + (1 - beta) q, 0 < beta < 1: returns
// beta KL(p || m) + (1 - beta) KL(q || m) and adds
// factor (1 - beta) q_i (log(q_i / m_i) - KL(q || m)) to g.
double mixture_divergence(const SoftmaxRow& q, const SoftmaxRow& p, double beta,
                          double factor, std::span<float> g,
                          std::span<float> scratch, const LossKernels& kernels);

}  // namespace llmpress

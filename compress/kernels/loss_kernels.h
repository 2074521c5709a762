// The operations on rows of logits that losses and their gradients are made
// of, for one instruction set. The exponentials of a row are taken once, and
// kept for all that follows. A logit of minus infinity is a probability of 0; a
// NaN stays one, but max() may pass over it.
#pragma once

#include <cstddef>

#include "compress/kernels/cpu.h"

namespace llmpress {

// p = softmax(logits): p_i = exps_i / sum, exps_i = exp(logits_i - max),
// log p_i = logits_i - max - log_sum.
struct SoftmaxRow {
  std::size_t size = 0;
  const float* logits = nullptr;
  const float* exps = nullptr;
  float max = 0;
  double sum = 1, log_sum = 0;
};

// What two distributions p and q have to do with m = beta p + (1 - beta) q.
struct MixtureSums {
  double divergence = 0;  // beta KL(p || m) + (1 - beta) KL(q || m)
  double second = 0;      // KL(q || m)
};

// Rows of one call have one size; y, a and log_ratio have it, too.
struct LossKernels {
  float (*max)(const float* x, std::size_t n);
  // exps_i <- exp(x_i - shift); returns their sum.
  double (*exp_and_sum)(const float* x, std::size_t n, float shift,
                        float* exps);
  // KL(p || q); log_ratio_i <- log(p_i / q_i) unless it is null.
  double (*divergence)(const SoftmaxRow& p, const SoftmaxRow& q,
                       float* log_ratio);
  // The two above of the mixture; log_ratio_i <- log(q_i / m_i), which may be
  // anything where q_i is 0.
  MixtureSums (*mixture)(const SoftmaxRow& p, const SoftmaxRow& q, double beta,
                         float* log_ratio);
  // y_i += factor p_i + offset
  void (*add_scaled)(const SoftmaxRow& p, double factor, float offset,
                     float* y);
  // y_i += factor (q_i - p_i); exactly 0 for equal rows.
  void (*add_difference)(const SoftmaxRow& q, const SoftmaxRow& p,
                         double factor, float* y);
  // y_i += factor q_i (a_i - offset), 0 where q_i is.
  void (*add_product)(const SoftmaxRow& q, double factor, const float* a,
                      double offset, float* y);
};

const LossKernels& loss_kernels(Isa isa);
const LossKernels& loss_kernels_avx2();
const LossKernels& loss_kernels_avx512();

}  // namespace llmpress

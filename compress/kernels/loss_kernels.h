// The operations on a row of logits that losses and their gradients are made
// of, for one instruction set: every exponential of a loss is taken here.
// Lowest exponentials are 0, so a logit of minus infinity is a probability of
// 0; a NaN stays one, but max() may pass over it.
#pragma once

#include <cstddef>

#include "compress/kernels/cpu.h"

namespace llmpress {

// x -> factor exp(x - shift): a probability, where the shift is the row's
// largest logit and the factor 1 / sum_i exp(x_i - shift).
struct ScaledExp {
  float shift = 0, factor = 1;
};

// What two distributions p and q have to do with m = beta p + (1 - beta) q.
struct MixtureSums {
  double divergence = 0;  // sum_i beta p_i log(p_i / m_i) + (1 - beta) c_i
  double second = 0;      // sum_i c_i, c_i = q_i log(q_i / m_i)
};

struct LossKernels {
  float (*max)(const float* x, std::size_t n);
  // sum_i exp(x_i - shift)
  double (*sum_exp)(const float* x, std::size_t n, float shift);
  // sum_i exp(p_i - shift) (p_i - q_i - difference), where the first is not 0.
  double (*divergence)(const float* p, const float* q, std::size_t n,
                       float shift, double difference);
  // y_i += e(x_i) + offset
  void (*add_exp)(const float* x, std::size_t n, ScaledExp e, float offset,
                  float* y);
  // y_i += e(x_i) - f(z_i); exactly 0 for the same numbers.
  void (*add_exp_difference)(const float* x, ScaledExp e, const float* z,
                             ScaledExp f, std::size_t n, float* y);
  // y_i += e(x_i) (a_i - offset), where the first is not 0.
  void (*add_exp_product)(const float* x, ScaledExp e, const float* a,
                          double offset, std::size_t n, float* y);
  // p_i = e(x_i), q_i = f(z_i), log(p_i / q_i) = x_i - z_i - difference;
  // log_ratio_i <- log(q_i / m_i), which may be anything where q_i is 0.
  MixtureSums (*mixture)(const float* x, ScaledExp e, const float* z,
                         ScaledExp f, std::size_t n, double difference,
                         double beta, float* log_ratio);
};

const LossKernels& loss_kernels(Isa isa);
const LossKernels& loss_kernels_avx2();
const LossKernels& loss_kernels_avx512();

}  // namespace llmpress

#include "compress/kernels/loss_kernels.h"

#include <cmath>
#include <limits>

#include "compress/kernels/target.h"

namespace llmpress {
namespace {

float max_of(const float* x, std::size_t n) {
  float max = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < n; ++i) {
    max = x[i] > max || std::isnan(x[i]) ? x[i] : max;
  }
  return max;
}

double exp_and_sum(const float* x, std::size_t n, float shift, float* exps) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    exps[i] = static_cast<float>(std::exp(double{x[i]} - double{shift}));
    sum += double{exps[i]};
  }
  return sum;
}

// log(p_i / q_i)
double log_ratio_of(const SoftmaxRow& p, const SoftmaxRow& q, std::size_t i) {
  return (double{p.logits[i]} - double{p.max}) -
         (double{q.logits[i]} - double{q.max}) - (p.log_sum - q.log_sum);
}

double divergence(const SoftmaxRow& p, const SoftmaxRow& q, float* log_ratio) {
  double sum = 0;
  for (std::size_t i = 0; i < p.size; ++i) {
    const double ratio = log_ratio_of(p, q, i);
    if (p.exps[i] != 0) sum += double{p.exps[i]} * ratio;
    if (log_ratio != nullptr) log_ratio[i] = static_cast<float>(ratio);
  }
  return sum / p.sum;
}

void add_scaled(const SoftmaxRow& p, double factor, float offset, float* y) {
  const double scale = factor / p.sum;
  for (std::size_t i = 0; i < p.size; ++i) {
    y[i] += static_cast<float>(scale * double{p.exps[i]} + double{offset});
  }
}

void add_difference(const SoftmaxRow& q, const SoftmaxRow& p, double factor,
                    float* y) {
  const double scale_q = factor / q.sum, scale_p = factor / p.sum;
  for (std::size_t i = 0; i < q.size; ++i) {
    y[i] += static_cast<float>(scale_q * double{q.exps[i]} -
                               scale_p * double{p.exps[i]});
  }
}

void add_product(const SoftmaxRow& q, double factor, const float* a,
                 double offset, float* y) {
  const double scale = factor / q.sum;
  for (std::size_t i = 0; i < q.size; ++i) {
    if (q.exps[i] != 0) {
      y[i] += static_cast<float>(scale * double{q.exps[i]} *
                                 (double{a[i]} - offset));
    }
  }
}

// log(m / q) = log(1 + beta (p / q - 1)) and log(m / p), each without an
// infinity where the other distribution has a 0.
struct LogMixture {
  double over_p, over_q;
};
LogMixture log_mixture(double log_ratio, double beta) {
  if (log_ratio > 0) {
    const double over_p = std::log1p((1 - beta) * std::expm1(-log_ratio));
    return {over_p, over_p + log_ratio};
  }
  const double over_q = std::log1p(beta * std::expm1(log_ratio));
  return {over_q - log_ratio, over_q};
}

MixtureSums mixture(const SoftmaxRow& p, const SoftmaxRow& q, double beta,
                    float* log_ratio) {
  double first = 0, second = 0;
  for (std::size_t i = 0; i < p.size; ++i) {
    const LogMixture m = log_mixture(log_ratio_of(p, q, i), beta);
    if (p.exps[i] != 0) first -= double{p.exps[i]} * m.over_p;
    if (q.exps[i] != 0) second -= double{q.exps[i]} * m.over_q;
    log_ratio[i] = static_cast<float>(-m.over_q);
  }
  return {beta * first / p.sum + (1 - beta) * second / q.sum, second / q.sum};
}

const LossKernels& loss_kernels_scalar() {
  static constexpr LossKernels kKernels{
      .max = &max_of,
      .exp_and_sum = &exp_and_sum,
      .divergence = &divergence,
      .mixture = &mixture,
      .add_scaled = &add_scaled,
      .add_difference = &add_difference,
      .add_product = &add_product,
  };
  return kKernels;
}

}  // namespace

const LossKernels& loss_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return loss_kernels_avx2();
  if (isa == Isa::kAvx512) return loss_kernels_avx512();
#endif
  (void)isa;
  return loss_kernels_scalar();
}

}  // namespace llmpress

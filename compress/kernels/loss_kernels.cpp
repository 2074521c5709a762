#include "compress/kernels/loss_kernels.h"

#include <cmath>
#include <limits>

#include "compress/kernels/target.h"

namespace llmpress {
namespace {

double value_of(ScaledExp e, float x) {
  return double{e.factor} * std::exp(double{x} - double{e.shift});
}

float max_of(const float* x, std::size_t n) {
  float max = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < n; ++i) {
    max = x[i] > max || std::isnan(x[i]) ? x[i] : max;
  }
  return max;
}

double sum_exp(const float* x, std::size_t n, float shift) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += value_of({shift, 1}, x[i]);
  return sum;
}

double divergence(const float* p, const float* q, std::size_t n, float shift,
                  double difference) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double e = value_of({shift, 1}, p[i]);
    if (e != 0) sum += e * (double{p[i]} - double{q[i]} - difference);
  }
  return sum;
}

void add_exp(const float* x, std::size_t n, ScaledExp e, float offset,
             float* y) {
  for (std::size_t i = 0; i < n; ++i) {
    y[i] += static_cast<float>(value_of(e, x[i]) + double{offset});
  }
}

void add_exp_difference(const float* x, ScaledExp e, const float* z,
                        ScaledExp f, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) {
    y[i] += static_cast<float>(value_of(e, x[i]) - value_of(f, z[i]));
  }
}

void add_exp_product(const float* x, ScaledExp e, const float* a, double offset,
                     std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) {
    const double weight = value_of(e, x[i]);
    if (weight != 0) {
      y[i] += static_cast<float>(weight * (double{a[i]} - offset));
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

MixtureSums mixture(const float* x, ScaledExp e, const float* z, ScaledExp f,
                    std::size_t n, double difference, double beta,
                    float* log_ratio) {
  MixtureSums sums;
  for (std::size_t i = 0; i < n; ++i) {
    const double p = value_of(e, x[i]), q = value_of(f, z[i]);
    const auto m = log_mixture(double{x[i]} - double{z[i]} - difference, beta);
    const double first = p != 0 ? -p * m.over_p : 0;
    const double second = q != 0 ? -q * m.over_q : 0;
    sums.divergence += beta * first + (1 - beta) * second;
    sums.second += second;
    log_ratio[i] = static_cast<float>(-m.over_q);
  }
  return sums;
}

const LossKernels& loss_kernels_scalar() {
  static constexpr LossKernels kKernels{
      .max = &max_of,
      .sum_exp = &sum_exp,
      .divergence = &divergence,
      .add_exp = &add_exp,
      .add_exp_difference = &add_exp_difference,
      .add_exp_product = &add_exp_product,
      .mixture = &mixture,
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

#include "distill/losses/row_divergence.h"

#include <cstddef>

#include "distill/losses/row_softmax.h"

namespace llmpress {
namespace {

// The exact value is not below 0; NaN stays.
double not_negative(double x) { return x < 0 ? 0 : x; }

}  // namespace

double forward_divergence(std::span<const float> z, std::span<const float> t,
                          double factor, std::span<float> g,
                          const LossKernels& kernels) {
  const RowSoftmax q = row_softmax(z, kernels), p = row_softmax(t, kernels);
  kernels.add_exp_difference(z.data(), q.times(factor), t.data(),
                             p.times(factor), z.size(), g.data());
  return not_negative(double{p.probability.factor} *
                      kernels.divergence(t.data(), z.data(), z.size(),
                                         p.probability.shift,
                                         p.log_sum - q.log_sum));
}

double reverse_divergence(std::span<const float> z, std::span<const float> t,
                          double factor, std::span<float> g,
                          std::span<float> scratch,
                          const LossKernels& kernels) {
  const RowSoftmax q = row_softmax(z, kernels), p = row_softmax(t, kernels);
  const double difference = q.log_sum - p.log_sum;
  const double sum = double{q.probability.factor} *
                     kernels.divergence(z.data(), t.data(), z.size(),
                                        q.probability.shift, difference);
  // Differences to the largest logit lose nothing where a probability is left.
  const float z_max = q.probability.shift, t_max = p.probability.shift;
  for (std::size_t i = 0; i < z.size(); ++i) {
    scratch[i] = (z[i] - z_max) - (t[i] - t_max);
  }
  kernels.add_exp_product(z.data(), q.times(factor), scratch.data(),
                          difference - (double{z_max} - double{t_max}) + sum,
                          z.size(), g.data());
  return not_negative(sum);
}

double mixture_divergence(std::span<const float> z, std::span<const float> t,
                          double beta, double factor, std::span<float> g,
                          std::span<float> scratch,
                          const LossKernels& kernels) {
  const RowSoftmax q = row_softmax(z, kernels), p = row_softmax(t, kernels);
  const MixtureSums sums =
      kernels.mixture(t.data(), p.probability, z.data(), q.probability,
                      z.size(), p.log_sum - q.log_sum, beta, scratch.data());
  kernels.add_exp_product(z.data(), q.times(factor * (1 - beta)),
                          scratch.data(), sums.second, z.size(), g.data());
  return not_negative(sums.divergence);
}

}  // namespace llmpress

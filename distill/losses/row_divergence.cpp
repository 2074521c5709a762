#include "distill/losses/row_divergence.h"

namespace llmpress {
namespace {

// The exact value is not below 0; NaN stays.
double not_negative(double x) { return x < 0 ? 0 : x; }

}  // namespace

double forward_divergence(const SoftmaxRow& q, const SoftmaxRow& p,
                          double factor, std::span<float> g,
                          const LossKernels& kernels) {
  kernels.add_difference(q, p, factor, g.data());
  return not_negative(kernels.divergence(p, q, nullptr));
}

double reverse_divergence(const SoftmaxRow& q, const SoftmaxRow& p,
                          double factor, std::span<float> g,
                          std::span<float> scratch,
                          const LossKernels& kernels) {
  const double divergence = kernels.divergence(q, p, scratch.data());
  kernels.add_product(q, factor, scratch.data(), divergence, g.data());
  return not_negative(divergence);
}

double mixture_divergence(const SoftmaxRow& q, const SoftmaxRow& p, double beta,
                          double factor, std::span<float> g,
                          std::span<float> scratch,
                          const LossKernels& kernels) {
  const MixtureSums sums = kernels.mixture(p, q, beta, scratch.data());
  kernels.add_product(q, factor * (1 - beta), scratch.data(), sums.second,
                      g.data());
  return not_negative(sums.divergence);
}

}  // namespace llmpress

#include "compress/kernels/softmax.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "compress/kernels/row_kernels.h"

namespace llmpress {
namespace {

float row_max(std::span<const float> z) {
  float m = -std::numeric_limits<float>::infinity();
  for (const float v : z) m = v > m || std::isnan(v) ? v : m;
  return m;
}

}  // namespace

double log_sum_exp(std::span<const float> logits, Isa isa) {
  const RowKernels* const k = row_kernels(isa);
  const float max =
      k != nullptr ? k->max(logits.data(), logits.size()) : row_max(logits);
  if (!std::isfinite(max)) return double{max};
  double sum = 0;
  if (k != nullptr) {
    sum = k->sum_exp(logits.data(), logits.size(), max);
  } else {
    for (const float z : logits) sum += std::exp(double{z} - double{max});
  }
  return double{max} + std::log(sum);
}

void softmax_in_place(std::span<float> logits, Isa isa) {
  const double total = log_sum_exp(logits, isa);
  const RowKernels* const k = row_kernels(isa);
  if (k == nullptr || !std::isfinite(total)) {
    for (float& z : logits) z = static_cast<float>(std::exp(double{z} - total));
    return;
  }
  const float max = k->max(logits.data(), logits.size());
  k->scaled_exp(logits.data(), logits.size(), max,
                static_cast<float>(std::exp(double{max} - total)),
                logits.data());
}

void log_softmax_in_place(std::span<float> logits, Isa isa) {
  const double total = log_sum_exp(logits, isa);
  for (float& z : logits) z = static_cast<float>(double{z} - total);
}

double negative_log_likelihood(std::span<const float> logits,
                               std::size_t target, Isa isa) {
  assert(target < logits.size());
  return log_sum_exp(logits, isa) - double{logits[target]};
}

double kl_divergence(std::span<const float> p_logits,
                     std::span<const float> q_logits, Isa isa) {
  assert(p_logits.size() == q_logits.size());
  const double p_total = log_sum_exp(p_logits, isa);
  const double q_total = log_sum_exp(q_logits, isa);
  double sum = 0;
  const RowKernels* const k = row_kernels(isa);
  if (k != nullptr && std::isfinite(p_total)) {
    const float max = k->max(p_logits.data(), p_logits.size());
    sum = k->divergence(p_logits.data(), q_logits.data(), p_logits.size(), max,
                        p_total - q_total) *
          std::exp(double{max} - p_total);
    return sum < 0 ? 0 : sum;
  }
  for (std::size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = double{p_logits[i]} - p_total;
    const double p = std::exp(log_p);
    if (p != 0) sum += p * (log_p - (double{q_logits[i]} - q_total));
  }
  return sum < 0 ? 0 : sum;  // rounding only: the exact value is >= 0
}

std::size_t argmax(std::span<const float> logits) {
  assert(!logits.empty());
  return static_cast<std::size_t>(
      std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace llmpress

#include "distill/optimizers/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace llmpress {
namespace {

constexpr std::size_t kChunk = 65536;

// Eight sums side by side: the compiler may use vectors, and the order of the
// additions stays the one written here.
double sum_of_squares(std::span<const float> x) {
  constexpr std::size_t kLanes = 8;
  double lane[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      lane[j] += double{x[i + j]} * double{x[i + j]};
    }
  }
  double sum = 0;
  for (; i < x.size(); ++i) sum += double{x[i]} * double{x[i]};
  for (const double s : lane) sum += s;
  return sum;
}

}  // namespace

double gradient_norm(std::span<const std::span<const float>> gradients,
                     ThreadPool& pool) {
  std::vector<std::span<const float>> chunks;
  for (const auto& gradient : gradients) {
    for (std::size_t i = 0; i < gradient.size(); i += kChunk) {
      chunks.push_back(
          gradient.subspan(i, std::min(kChunk, gradient.size() - i)));
    }
  }
  std::vector<double> sums(chunks.size());
  pool.for_each(chunks.size(),
                [&](std::size_t c) { sums[c] = sum_of_squares(chunks[c]); });
  double sum = 0;
  for (const double s : sums) sum += s;
  return std::sqrt(sum);
}

float clip_factor(double norm, double max_norm) {
  if (max_norm <= 0) return 1;
  return static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
}

}  // namespace llmpress

#include "pruning/owl.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Sums f(row, norms) over the rows of all Linears, in order.
template <class RowValue>
double sum_rows(std::span<const OwlLinear> linears, ThreadPool& pool,
                const RowValue& row_value) {
  double sum = 0;
  for (const OwlLinear& linear : linears) {
    assert(linear.square_mean.size() == linear.W.cols());
    std::vector<float> norms(linear.square_mean.size());
    std::ranges::transform(linear.square_mean, norms.begin(),
                           [](float square) { return std::sqrt(square); });
    std::vector<double> rows(linear.W.rows());
    pool.for_ranges(rows.size(), 16, [&](std::size_t begin, std::size_t end) {
      for (std::size_t o = begin; o < end; ++o) {
        rows[o] = row_value(linear.W.row(o), norms);
      }
    });
    sum = std::accumulate(rows.begin(), rows.end(), sum);
  }
  return sum;
}

}  // namespace

double outlier_ratio(std::span<const OwlLinear> linears, double threshold,
                     ThreadPool& pool) {
  std::size_t count = 0;
  for (const OwlLinear& linear : linears) count += linear.W.size();
  if (count == 0) return 0;
  const double total =
      sum_rows(linears, pool,
               [](std::span<const float> w, std::span<const float> norms) {
                 double sum = 0;
                 for (std::size_t i = 0; i < w.size(); ++i) {
                   sum += static_cast<double>(std::abs(w[i]) * norms[i]);
                 }
                 return sum;
               });
  const double limit = threshold * total / static_cast<double>(count);
  const double above =
      sum_rows(linears, pool,
               [limit](std::span<const float> w, std::span<const float> norms) {
                 std::size_t n = 0;
                 for (std::size_t i = 0; i < w.size(); ++i) {
                   n += static_cast<double>(std::abs(w[i]) * norms[i]) > limit;
                 }
                 return static_cast<double>(n);
               });
  return above / static_cast<double>(count);
}

std::vector<double> owl_sparsities(std::span<const double> outlier_ratios,
                                   double sparsity, double lambda) {
  if (!(lambda >= 0 && 2 * lambda <= sparsity && sparsity + 2 * lambda < 1)) {
    fail(ErrorCode::kInvalidArgument,
         "owl: found sparsity {} and lambda {}, wanted sparsity +- 2 lambda "
         "within [0, 1)",
         sparsity, lambda);
  }
  for (const double ratio : outlier_ratios) {
    if (!std::isfinite(ratio)) {
      throw Error(ErrorCode::kNumeric, "owl: an outlier ratio is not finite");
    }
  }
  std::vector<double> sparsities(outlier_ratios.size(), sparsity);
  if (sparsities.empty()) return sparsities;
  const auto [low, high] = std::ranges::minmax(outlier_ratios);
  if (high == low) return sparsities;
  double mean = 0;
  for (std::size_t b = 0; b < sparsities.size(); ++b) {
    sparsities[b] = 2 * lambda * (outlier_ratios[b] - low) / (high - low);
    mean += sparsities[b] / static_cast<double>(sparsities.size());
  }
  for (double& s : sparsities) s = sparsity - (s - mean);
  return sparsities;
}

}  // namespace llmpress

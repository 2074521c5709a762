#include "compress/core/sparse_difference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kTokensPerTask = 16;

}  // namespace

SparseDifference sparse_difference(ConstMatrixView D) {
  const std::span<const float> numbers = D.data();
  if (numbers.size() > std::numeric_limits<std::uint32_t>::max()) {
    fail(ErrorCode::kUnsupported,
         "a sparse difference of a weight [{}, {}]: wanted below 2^32 numbers",
         D.rows(), D.cols());
  }
  SparseDifference sparse{.rows = D.rows(), .cols = D.cols()};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == 0) continue;
    sparse.indices.push_back(static_cast<std::uint32_t>(i));
    sparse.values.push_back(numbers[i]);
  }
  return sparse;
}

float largest_magnitudes(std::span<const std::span<const float>> parts,
                         std::size_t count) {
  std::vector<float> magnitudes;
  for (const std::span<const float> part : parts) {
    for (const float x : part) {
      if (x != 0) magnitudes.push_back(std::fabs(x));
    }
  }
  if (count >= magnitudes.size()) return 0;
  if (count == 0) return std::numeric_limits<float>::infinity();
  const auto last = magnitudes.begin() + static_cast<std::ptrdiff_t>(count) - 1;
  std::nth_element(magnitudes.begin(), last, magnitudes.end(),
                   std::greater<>());
  return *last;
}

void add_in_place(const SparseDifference& D, double weight,
                  MatrixView<float> W) {
  if (W.rows() != D.rows || W.cols() != D.cols) {
    fail(ErrorCode::kInvalidArgument,
         "a difference [{}, {}] of a weight [{}, {}]", D.rows, D.cols, W.rows(),
         W.cols());
  }
  const std::span<float> w = W.data();
  for (std::size_t n = 0; n < D.indices.size(); ++n) {
    float& to = w[D.indices[n]];
    to = static_cast<float>(double{to} + weight * double{D.values[n]});
  }
}

void apply_in_place(const SparseDifference& D, double weight, ConstMatrixView X,
                    MatrixView<float> Y, ThreadPool& pool) {
  const auto factor = static_cast<float>(weight);
  pool.for_ranges(
      X.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          const auto x = X.row(t);
          const auto y = Y.row(t);
          for (std::size_t n = 0; n < D.indices.size(); ++n) {
            const std::size_t o = D.indices[n] / D.cols;
            y[o] += factor * D.values[n] * x[D.indices[n] - o * D.cols];
          }
        }
      });
}

}  // namespace llmpress

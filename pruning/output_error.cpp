#include "pruning/output_error.h"

#include <algorithm>
#include <vector>

#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kBlockRows = 512;  // of W - W' and its product with S

double sum_in_order(const std::vector<double>& rows) {
  double sum = 0;
  for (const double row : rows) sum += row;
  return sum;
}

// Squares weighted by `weights` [in], or by 1 where that is empty.
double weighted_squares(ConstMatrixView W, ConstMatrixView W_pruned,
                        std::span<const float> weights, ThreadPool& pool) {
  std::vector<double> rows(W.rows());
  pool.for_ranges(W.rows(), 16, [&](std::size_t begin, std::size_t end) {
    for (std::size_t o = begin; o < end; ++o) {
      const auto a = W.row(o), b = W_pruned.row(o);
      for (std::size_t i = 0; i < a.size(); ++i) {
        const double e = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        const double weight =
            weights.empty() ? 1 : static_cast<double>(weights[i]);
        rows[o] += weight * e * e;
      }
    }
  });
  return sum_in_order(rows);
}

double full_squares(ConstMatrixView W, ConstMatrixView W_pruned,
                    ConstMatrixView S, ThreadPool& pool) {
  std::vector<double> rows(W.rows());
  for (std::size_t first = 0; first < W.rows(); first += kBlockRows) {
    const std::size_t count = std::min(kBlockRows, W.rows() - first);
    MatrixF E(W.rows_slice(first, count));
    const auto pruned = W_pruned.rows_slice(first, count).data();
    for (std::size_t k = 0; k < E.size(); ++k) E.data()[k] -= pruned[k];
    MatrixF ES(count, W.cols());
    matmul(E.view(), S, ES.view(), pool);
    pool.for_ranges(count, 16, [&](std::size_t begin, std::size_t end) {
      for (std::size_t o = begin; o < end; ++o) {
        const auto e = E.row(o), es = ES.row(o);
        for (std::size_t i = 0; i < e.size(); ++i) {
          rows[first + o] +=
              static_cast<double>(e[i]) * static_cast<double>(es[i]);
        }
      }
    });
  }
  return std::max(0.0, sum_in_order(rows));
}

}  // namespace

OutputError pruned_output_error(ConstMatrixView W, ConstMatrixView W_pruned,
                                const InputStats* stats, ThreadPool& pool) {
  if (W.rows() == 0) return {};
  const auto out = static_cast<double>(W.rows());
  if (stats != nullptr && !stats->second_moment.empty()) {
    return {full_squares(W, W_pruned, stats->second_moment.view(), pool) / out,
            ErrorBasis::kSecondMoment};
  }
  const bool diagonal = stats != nullptr && !stats->square_mean.empty();
  const std::span<const float> weights =
      diagonal ? std::span<const float>(stats->square_mean)
               : std::span<const float>();
  return {weighted_squares(W, W_pruned, weights, pool) / out,
          diagonal ? ErrorBasis::kDiagonal : ErrorBasis::kIdentity};
}

}  // namespace llmpress

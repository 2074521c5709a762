#include "pruning/healing.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "pruning/output_error.h"
#include "pruning/unit_selection.h"

namespace llmpress {
namespace {

void check_shapes(ConstMatrixView W, ConstMatrixView S,
                  std::span<const std::size_t> kept, std::string_view name) {
  const std::size_t in = W.cols();
  const bool ascending = std::ranges::adjacent_find(
                             kept, std::ranges::greater_equal{}) == kept.end();
  if (S.rows() == in && S.cols() == in && !kept.empty() && ascending &&
      kept.back() < in) {
    return;
  }
  throw Error(ErrorCode::kInvalidArgument,
              std::string(name) + ": healing " + std::to_string(in) +
                  " inputs with a second moment [" + std::to_string(S.rows()) +
                  ", " + std::to_string(S.cols()) + "] and " +
                  std::to_string(kept.size()) +
                  " kept, wanted matching sizes and ascending indices");
}

MatrixF submatrix(ConstMatrixView S, std::span<const std::size_t> rows,
                  std::span<const std::size_t> columns) {
  MatrixF selected(rows.size(), columns.size());
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto from = S.row(rows[r]);
    for (std::size_t c = 0; c < columns.size(); ++c) {
      selected(r, c) = from[columns[c]];
    }
  }
  return selected;
}

// tr(W S W^T).
double quadratic(const MatrixF& W, MatrixF S, ThreadPool& pool) {
  InputStats stats;
  stats.second_moment = std::move(S);
  const MatrixF zero(W.rows(), W.cols());
  return pruned_output_error(W.view(), zero.view(), &stats, pool).value *
         static_cast<double>(W.rows());
}

double dot(const MatrixF& A, const MatrixF& B) {
  double sum = 0;
  for (std::size_t k = 0; k < A.size(); ++k) {
    sum += static_cast<double>(A.data()[k]) * static_cast<double>(B.data()[k]);
  }
  return sum;
}

}  // namespace

Healed heal(ConstMatrixView W, ConstMatrixView S,
            std::span<const std::size_t> kept, const DampingConfig& damping,
            ThreadPool& pool, std::string_view name) {
  check_shapes(W, S, kept, name);
  Healed healed;
  healed.W = select_columns(W, kept);
  const std::vector<std::size_t> removed = complement(kept, W.cols());
  if (removed.empty() || W.rows() == 0) return healed;
  const MatrixF W_D = select_columns(W, removed);
  // B = S_KD W_D^T [kept, out].
  MatrixF B(kept.size(), W.rows());
  matmul_transposed(submatrix(S, kept, removed).view(), W_D.view(), B.view(),
                    pool);
  MatrixF A = submatrix(S, kept, kept);
  std::vector<double> diagonal(kept.size());
  double mean = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    diagonal[i] = static_cast<double>(A(i, i));
    mean += diagonal[i] / static_cast<double>(kept.size());
  }
  const auto out = static_cast<double>(W.rows());
  const double squared_removed =
      quadratic(W_D, submatrix(S, removed, removed), pool);
  healed.error_removed = healed.error_healed = squared_removed / out;
  if (mean == 0) return healed;  // the kept inputs are silent: nothing to do
  MatrixF X;
  const Damped damped = with_damping(damping, mean, name, [&](double added) {
    for (std::size_t i = 0; i < kept.size(); ++i) {
      A(i, i) = static_cast<float>(diagonal[i] + added);
    }
    auto solution = solve_spd(A.view(), B.view(), pool);
    if (solution) X = *std::move(solution);
    return solution.has_value();
  });
  healed.damping_fraction = damped.fraction;
  healed.notes = damped.notes();
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < kept.size(); ++i) healed.W(o, i) += X(i, o);
  }
  // tr(W_D S_DD W_D^T) - 2 tr(B^T X) + tr(X^T S_KK X), and S_KK X = B - damping
  // X.
  healed.error_healed =
      std::max(0.0, squared_removed - dot(B, X) - damped.damping * dot(X, X)) /
      out;
  if (!std::isfinite(healed.error_healed)) {
    throw Error(
        ErrorCode::kNumeric,
        std::string(name) + ": healing gave weights that are not finite");
  }
  return healed;
}

}  // namespace llmpress

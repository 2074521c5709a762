#include "pruning/healing.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <optional>
#include <utility>

#include "compress/core/formatted.h"
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
  fail(ErrorCode::kInvalidArgument,
       "{}: healing {} inputs with a second moment [{}, {}] and {} kept, "
       "wanted matching sizes and ascending indices",
       name, in, S.rows(), S.cols(), kept.size());
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

// (S_KK + damping I) X = B.
struct Solution {
  MatrixF X;  // [kept, out]
  Damped damped;
};

Solution solve_damped(MatrixF S_KK, const MatrixF& B,
                      const DampingConfig& config, ThreadPool& pool,
                      std::string_view name) {
  std::vector<double> diagonal(S_KK.rows());
  double sum = 0;
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    sum += diagonal[i] = static_cast<double>(S_KK(i, i));
  }
  Solution solution{MatrixF(B.rows(), B.cols()), {}};
  if (sum == 0) return solution;  // the kept inputs are silent: nothing to do
  const auto solve = [&](double damping) {
    for (std::size_t i = 0; i < diagonal.size(); ++i) {
      S_KK(i, i) = static_cast<float>(diagonal[i] + damping);
    }
    auto X = solve_spd(S_KK.view(), B.view(), pool);
    if (!X) return false;
    solution.X = *std::move(X);
    return true;
  };
  solution.damped = with_damping(
      config, sum / static_cast<double>(diagonal.size()), name, solve);
  return solution;
}

MatrixF transposed(const MatrixF& A) {
  MatrixF T(A.cols(), A.rows());
  for (std::size_t r = 0; r < A.rows(); ++r) {
    for (std::size_t c = 0; c < A.cols(); ++c) T(c, r) = A(r, c);
  }
  return T;
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
  const auto out = static_cast<double>(W.rows());
  const MatrixF W_D = select_columns(W, removed);
  MatrixF B(kept.size(), W.rows());  // S_KD W_D^T
  matmul_transposed(submatrix(S, kept, removed).view(), W_D.view(), B.view(),
                    pool);
  const auto [X, damped] =
      solve_damped(submatrix(S, kept, kept), B, damping, pool, name);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < kept.size(); ++i) healed.W(o, i) += X(i, o);
  }
  // tr(W_D S_DD W_D^T) - 2 tr(B^T X) + tr(X^T S_KK X), S_KK X = B - damping X.
  const double squared = quadratic(W_D, submatrix(S, removed, removed), pool);
  const double gained = dot(B, X) + damped.damping * dot(X, X);
  if (!std::isfinite(squared) || !std::isfinite(gained)) {
    fail(ErrorCode::kNumeric, "{}: healing gave values that are not finite",
         name);
  }
  healed.error_removed = squared / out;
  healed.error_healed = std::max(0.0, squared - gained) / out;
  healed.damping_fraction = damped.fraction;
  healed.notes = damped.notes();
  return healed;
}

ResidualCollector::ResidualCollector(std::size_t out, std::size_t in,
                                     std::size_t total_tokens)
    : weight_(1.0 /
              static_cast<double>(std::max<std::size_t>(total_tokens, 1))),
      moments_{MatrixF(in, in), MatrixF(out, in), 0} {}

void ResidualCollector::add(ConstMatrixView Z, ConstMatrixView residual,
                            ThreadPool& pool) {
  assert(Z.rows() == residual.rows() && Z.cols() == moments_.S.rows() &&
         residual.cols() == moments_.R.rows());
  const auto weight = static_cast<float>(weight_);
  add_gram(Z, weight, moments_.S.view(), pool);
  add_cross_gram(residual, Z, weight, moments_.R.view(), pool);
  std::vector<double> rows(residual.rows());
  pool.for_ranges(rows.size(), 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      for (const float r : residual.row(t)) {
        rows[t] += static_cast<double>(r) * static_cast<double>(r);
      }
    }
  });
  for (const double r : rows) moments_.energy += weight_ * r;
}

Healed refit(ConstMatrixView W, ResidualMoments moments,
             const DampingConfig& damping, ThreadPool& pool,
             std::string_view name) {
  auto& [S, R, energy] = moments;
  if (S.rows() != W.cols() || S.cols() != W.cols() || R.rows() != W.rows() ||
      R.cols() != W.cols()) {
    fail(ErrorCode::kInvalidArgument,
         "{}: moments of [{}, {}], wanted the weight's [{}, {}]", name,
         R.rows(), S.rows(), W.rows(), W.cols());
  }
  Healed healed{.W = MatrixF(W)};
  if (W.size() == 0) return healed;
  if (!std::isfinite(energy)) {
    fail(ErrorCode::kNumeric, "{}: the outputs to fit are not finite", name);
  }
  const MatrixF B = transposed(R);
  const auto [X, damped] = solve_damped(std::move(S), B, damping, pool, name);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) healed.W(o, i) += X(i, o);
  }
  // E|r - D z|^2 = E|r|^2 - 2 tr(D R^T) + tr(D S D^T), D S = R - damping D.
  const double gained = dot(B, X) + damped.damping * dot(X, X);
  if (!std::isfinite(gained)) {
    fail(ErrorCode::kNumeric, "{}: healing gave values that are not finite",
         name);
  }
  const auto out = static_cast<double>(W.rows());
  healed.error_removed = energy / out;
  healed.error_healed = std::max(0.0, energy - gained) / out;
  healed.damping_fraction = damped.fraction;
  healed.notes = damped.notes();
  return healed;
}

}  // namespace llmpress

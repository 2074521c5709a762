#include "lora/randomized_svd.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

// The rows of Q [l, n] made orthonormal, one after another, each against those
// before it. Once loses digits where rows are nearly dependent, twice is enough
// (Giraud, Langou, Rozloznik 2005). Rows with nothing left become 0.
void orthonormalize_rows(MatrixF& Q, ThreadPool& pool) {
  constexpr int kPasses = 2;
  constexpr std::size_t kColumns = 512;  // of a chunk
  constexpr double kLost = 1e-6;         // of a row's length: rounding alone
  std::vector<double> along(Q.rows());
  for (std::size_t r = 0; r < Q.rows(); ++r) {
    const double before = std::sqrt(dot(Q.row(r), Q.row(r)));
    for (int pass = 0; pass < kPasses; ++pass) {
      pool.for_each(r,
                    [&](std::size_t k) { along[k] = dot(Q.row(k), Q.row(r)); });
      pool.for_ranges(Q.cols(), kColumns, [&](std::size_t b, std::size_t e) {
        for (std::size_t k = 0; k < r; ++k) {
          const auto factor = static_cast<float>(along[k]);
          for (std::size_t i = b; i < e; ++i) Q(r, i) -= factor * Q(k, i);
        }
      });
    }
    const double length = std::sqrt(dot(Q.row(r), Q.row(r)));
    const double scale = length > kLost * before ? 1 / length : 0;
    for (float& q : Q.row(r)) q = static_cast<float>(q * scale);
  }
}

// M A^T for rows M [l, n] of A [m, n]: [l, m].
MatrixF times_transposed(const MatrixF& M, ConstMatrixView A,
                         ThreadPool& pool) {
  MatrixF product(M.rows(), A.rows());
  matmul_transposed(M.view(), A, product.view(), pool);
  return product;
}

// M A for rows M [l, m]: [l, n].
MatrixF times(const MatrixF& M, ConstMatrixView A, ThreadPool& pool) {
  MatrixF product(M.rows(), A.cols());
  matmul(M.view(), A, product.view(), pool);
  return product;
}

void check_finite(ConstMatrixView A) {
  for (const float a : A.data()) {
    if (std::isfinite(a)) continue;
    throw Error(ErrorCode::kNumeric, "svd: a value is not finite");
  }
}

}  // namespace

Svd randomized_svd(ConstMatrixView A, const RandomizedSvdConfig& config,
                   ThreadPool& pool) {
  if (config.rank == 0) {
    throw Error(ErrorCode::kInvalidArgument, "svd: rank 0, wanted at least 1");
  }
  check_finite(A);
  const std::size_t l =
      std::min({config.rank + config.oversampling, A.rows(), A.cols()});
  if (l == 0) return {MatrixF(A.rows(), 0), {}, MatrixF(A.cols(), 0)};
  MatrixF omega(l, A.cols());
  Rng rng(config.seed);
  for (float& w : omega.data()) w = static_cast<float>(rng.normal());

  // Bases are kept as rows: Q [l, m].
  MatrixF Q = times_transposed(omega, A, pool);
  orthonormalize_rows(Q, pool);
  for (std::size_t i = 0; i < config.power_iterations; ++i) {
    MatrixF back = times(Q, A, pool);
    orthonormalize_rows(back, pool);
    Q = times_transposed(back, A, pool);
    orthonormalize_rows(Q, pool);
  }
  Svd small = thin_svd(times(Q, A, pool).view());  // of Q^T A [l, n]
  MatrixF U(A.rows(), small.U.cols());
  MatrixF Qt(A.rows(), l);
  for (std::size_t r = 0; r < l; ++r) {
    for (std::size_t o = 0; o < A.rows(); ++o) Qt(o, r) = Q(r, o);
  }
  matmul(Qt.view(), small.U.view(), U.view(), pool);
  return {std::move(U), std::move(small.s), std::move(small.V)};
}

}  // namespace llmpress

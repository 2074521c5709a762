// The factorizations of linalg.h.
#include <cblas.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/blas.h"
#include "compress/core/checked.h"
#include "compress/core/linalg.h"

// LAPACK, inside OpenBLAS. The hidden last argument is the length of `uplo`.
extern "C" void spotrf_(const char* uplo, const int* n, float* a,
                        const int* lda, int* info, std::size_t uplo_length);
extern "C" void strtri_(const char* uplo, const char* diag, const int* n,
                        float* a, const int* lda, int* info,
                        std::size_t uplo_length, std::size_t diag_length);

namespace llmpress {
namespace {

// Columns factored at a time, and the side of the tiles updated after that.
constexpr std::size_t kPanel = 256, kUpdateTile = 512;

// A is row-major with row stride n; block at row i, column j.
struct Square {
  float* data;
  std::size_t n;
  float* at(std::size_t i, std::size_t j) const { return data + i * n + j; }
};

// L of the diagonal block [size, size] at `begin`; false if a pivot fails.
bool factor_diagonal(Square A, std::size_t begin, std::size_t size) {
  use_one_blas_thread();
  const int n = blas_int(size), stride = blas_int(A.n);
  int info = 0;
  // LAPACK is column-major: its upper triangle is our lower one.
  spotrf_("U", &n, A.at(begin, begin), &stride, &info, 1);
  if (info != 0) return false;
  for (std::size_t i = begin; i < begin + size; ++i) {
    const float pivot = *A.at(i, i);
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
  }
  return true;
}

// Rows below the block: A21 <- A21 L11^-T.
void solve_panel(Square A, std::size_t begin, std::size_t end,
                 ThreadPool& pool) {
  pool.for_ranges(A.n - end, kPanel, [&](std::size_t first, std::size_t last) {
    use_one_blas_thread();
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit,
                blas_int(last - first), blas_int(end - begin), 1.0f,
                A.at(begin, begin), blas_int(A.n), A.at(end + first, begin),
                blas_int(A.n));
  });
}

// The trailing lower triangle: A22 <- A22 - A21 A21^T.
void update_trailing(Square A, std::size_t begin, std::size_t end,
                     ThreadPool& pool) {
  const std::size_t rest = A.n - end;
  const std::size_t blocks = ceil_div(rest, kUpdateTile);
  const auto width = blas_int(end - begin), stride = blas_int(A.n);
  pool.for_each(blocks * (blocks + 1) / 2, [&](std::size_t index) {
    use_one_blas_thread();
    std::size_t i = 0;
    while ((i + 1) * (i + 2) / 2 <= index) ++i;
    const std::size_t j = index - i * (i + 1) / 2;
    const std::size_t r = end + i * kUpdateTile, c = end + j * kUpdateTile;
    const auto rows = blas_int(std::min(kUpdateTile, A.n - r));
    if (i == j) {
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, rows, width, -1.0f,
                  A.at(r, begin), stride, 1.0f, A.at(r, c), stride);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows,
                  blas_int(kUpdateTile), width, -1.0f, A.at(r, begin), stride,
                  A.at(c, begin), stride, 1.0f, A.at(r, c), stride);
    }
  });
}

// Replaces the lower triangle of A by L with A = L L^T.
bool factor_in_place(Square A, ThreadPool& pool) {
  for (std::size_t begin = 0; begin < A.n; begin += kPanel) {
    const std::size_t end = std::min(A.n, begin + kPanel);
    if (!factor_diagonal(A, begin, end - begin)) return false;
    if (end == A.n) break;
    solve_panel(A, begin, end, pool);
    update_trailing(A, begin, end, pool);
  }
  return true;
}

// Replaces L, whose upper triangle is 0, by L^-1, panel by panel of columns from
// the last: below the panel's block L11, with X22 the inverse of what lies right
// of it, X21 = -X22 L21 L11^-1; in its place L11^-1.
void invert_in_place(Square L, ThreadPool& pool) {
  const std::size_t panels = ceil_div(L.n, kPanel);
  const auto stride = blas_int(L.n);
  for (std::size_t panel = panels; panel-- > 0;) {
    const std::size_t begin = panel * kPanel;
    const std::size_t end = std::min(L.n, begin + kPanel);
    const auto width = blas_int(end - begin);
    MatrixF below(L.n - end, end - begin);
    for (std::size_t r = end; r < L.n; ++r) {
      std::copy_n(L.at(r, begin), end - begin, below.row(r - end).begin());
    }
    pool.for_ranges(L.n - end, kPanel, [&](std::size_t r0, std::size_t r1) {
      use_one_blas_thread();
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas_int(r1 - r0),
                  width, blas_int(r1), -1.0f, L.at(end + r0, end), stride,
                  below.data().data(), width, 0.0f, L.at(end + r0, begin),
                  stride);
      cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans,
                  CblasNonUnit, blas_int(r1 - r0), width, 1.0f,
                  L.at(begin, begin), stride, L.at(end + r0, begin), stride);
    });
    use_one_blas_thread();
    const int n = width;
    int info = 0;
    // LAPACK is column-major: its upper triangle is our lower one.
    strtri_("U", "N", &n, L.at(begin, begin), &stride, &info, 1, 1);
    assert(info == 0);  // no pivot of a factor is 0
  }
}

// A(i, j) <-> A(n - 1 - i, n - 1 - j).
void reverse_in_place(MatrixF& A, ThreadPool& pool) {
  constexpr std::size_t kNumbers = std::size_t{1} << 20;
  const std::span<float> all = A.data();
  pool.for_ranges(all.size() / 2, kNumbers,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t k = begin; k < end; ++k) {
                      std::swap(all[k], all[all.size() - 1 - k]);
                    }
                  });
}

void clear_above_diagonal(Square A, ThreadPool& pool) {
  pool.for_ranges(A.n, 64, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      std::fill(A.at(i, 0) + i + 1, A.at(i, 0) + A.n, 0.0f);
    }
  });
}

}  // namespace

std::optional<MatrixF> cholesky_lower(ConstMatrixView A, ThreadPool& pool) {
  assert(A.rows() == A.cols());
  MatrixF L(A);
  const Square square{L.data().data(), L.rows()};
  if (!factor_in_place(square, pool)) return std::nullopt;
  clear_above_diagonal(square, pool);
  return L;
}

std::optional<MatrixF> inverse_cholesky_upper(MatrixF A, ThreadPool& pool) {
  assert(A.rows() == A.cols());
  reverse_in_place(A, pool);
  const Square square{A.data().data(), A.rows()};
  if (!factor_in_place(square, pool)) return std::nullopt;
  clear_above_diagonal(square, pool);
  invert_in_place(square, pool);
  reverse_in_place(A, pool);
  return A;
}

std::optional<MatrixF> solve_spd(ConstMatrixView A, ConstMatrixView B,
                                 ThreadPool& pool) {
  assert(A.rows() == A.cols() && B.rows() == A.rows());
  MatrixF L(A);
  const std::size_t n = A.rows(), m = B.cols();
  const Square l{L.data().data(), n};
  if (!factor_in_place(l, pool)) return std::nullopt;
  MatrixF X(B);
  constexpr std::size_t kColumns = 64;
  pool.for_ranges(m, kColumns, [&](std::size_t begin, std::size_t end) {
    use_one_blas_thread();
    for (const auto transpose : {CblasNoTrans, CblasTrans}) {
      cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, transpose, CblasNonUnit,
                  blas_int(n), blas_int(end - begin), 1.0f, l.data, blas_int(n),
                  X.data().data() + begin, blas_int(m));
    }
  });
  return X;
}

}  // namespace llmpress

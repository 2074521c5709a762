#include "compress/core/linalg.h"

#include <cblas.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <limits>

#include "compress/core/batch_gram.h"
#include "compress/core/blas.h"
#include "compress/core/blas_core_type.h"
#include "compress/core/checked.h"

namespace llmpress {
namespace {

// A tile is one product of one thread. Large enough that packing its operands
// is cheap beside multiplying them, small enough that a matrix has tiles for
// all threads: the sides shrink with the matrix, never with the threads.
constexpr std::size_t kTile = 512, kSmallestTile = 64, kEnoughTiles = 16;
// Below this many multiplications the whole product is one tile.
constexpr double kSmallProduct = 64.0 * 64.0 * 64.0;

struct Tiling {
  std::size_t rows, cols;  // of one tile
  std::size_t down, across;
};

Tiling tile(std::size_t m, std::size_t n, std::size_t k) {
  const double product =
      static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (product <= kSmallProduct) return {m, n, 1, 1};
  std::size_t rows = std::min(m, kTile), cols = std::min(n, kTile);
  while (ceil_div(m, rows) * ceil_div(n, cols) < kEnoughTiles) {
    std::size_t& longer = rows > cols ? rows : cols;
    if (longer <= kSmallestTile) break;
    longer = ceil_div(longer, 2);
  }
  // Whole vectors, so that only the last tile is ragged.
  rows = std::min(m, ceil_div(rows, 16) * 16);
  cols = std::min(n, ceil_div(cols, 16) * 16);
  return {rows, cols, ceil_div(m, rows), ceil_div(n, cols)};
}

// One operand of a product: row-major elements with a row stride.
struct Operand {
  const float* data;
  std::size_t stride;
  CBLAS_TRANSPOSE transpose;

  // The part that begins at row `r`, column `c` of the (transposed) operand.
  const float* at(std::size_t r, std::size_t c) const {
    return transpose == CblasTrans ? data + c * stride + r
                                   : data + r * stride + c;
  }
};

// C [m, n] (row stride `ldc`) = beta C + alpha A [m, k] B [k, n].
void product(const Tiling& t, const Operand& A, const Operand& B, float* C,
             std::size_t ldc, std::size_t m, std::size_t n, std::size_t k,
             float alpha, float beta, ThreadPool& pool) {
  pool.for_each(t.down * t.across, [&](std::size_t index) {
    use_one_blas_thread();
    const std::size_t i = index / t.across * t.rows;
    const std::size_t j = index % t.across * t.cols;
    cblas_sgemm(CblasRowMajor, A.transpose, B.transpose,
                blas_int(std::min(t.rows, m - i)),
                blas_int(std::min(t.cols, n - j)), blas_int(k), alpha,
                A.at(i, 0), blas_int(A.stride), B.at(0, j), blas_int(B.stride),
                beta, C + i * ldc + j, blas_int(ldc));
  });
}

void product(const Operand& A, const Operand& B, float* C, std::size_t ldc,
             std::size_t m, std::size_t n, std::size_t k, float alpha,
             float beta, ThreadPool& pool) {
  if (m == 0 || n == 0) return;
  product(tile(m, n, k), A, B, C, ldc, m, n, k, alpha, beta, pool);
}

Operand plain(ConstMatrixView A) {
  return {A.data().data(), std::max<std::size_t>(A.cols(), 1), CblasNoTrans};
}

Operand transposed(ConstMatrixView A) {
  return {A.data().data(), std::max<std::size_t>(A.cols(), 1), CblasTrans};
}

float beta_of(Accumulate mode) {
  return mode == Accumulate::kAdd ? 1.0f : 0.0f;
}

// y [n] = beta y + alpha B [n, k] x [k], rows of B in fixed stretches.
void matrix_vector(ConstMatrixView B, const float* x, float* y, float alpha,
                   float beta, ThreadPool& pool) {
  constexpr std::size_t kElements = std::size_t{1} << 18;  // 1 MiB of B
  const std::size_t k = B.cols();
  const std::size_t grain = std::max<std::size_t>(16, kElements / k / 16 * 16);
  pool.for_ranges(B.rows(), grain, [&](std::size_t begin, std::size_t end) {
    use_one_blas_thread();
    cblas_sgemv(CblasRowMajor, CblasNoTrans, blas_int(end - begin), blas_int(k),
                alpha, B.row(begin).data(), blas_int(k), x, 1, beta, y + begin,
                1);
  });
}

// The tiles of the lower triangle of an [n, n] matrix, diagonal included.
struct TrianglePart {
  std::size_t i, j;
};

std::vector<TrianglePart> lower_parts(std::size_t blocks) {
  std::vector<TrianglePart> parts;
  for (std::size_t i = 0; i < blocks; ++i) {
    for (std::size_t j = 0; j <= i; ++j) parts.push_back({i, j});
  }
  return parts;
}

}  // namespace

void matmul_transposed(ConstMatrixView A, ConstMatrixView B,
                       MatrixView<float> C, ThreadPool& pool, float alpha,
                       Accumulate mode) {
  assert(A.cols() == B.cols() && C.rows() == A.rows() && C.cols() == B.rows());
  if (A.rows() == 1 && A.cols() > 0) {
    return matrix_vector(B, A.data().data(), C.data().data(), alpha,
                         beta_of(mode), pool);
  }
  product(plain(A), transposed(B), C.data().data(), C.cols(), A.rows(),
          B.rows(), A.cols(), alpha, beta_of(mode), pool);
}

void matmul(ConstMatrixView A, ConstMatrixView B, MatrixView<float> C,
            ThreadPool& pool, float alpha, Accumulate mode) {
  assert(A.cols() == B.rows() && C.rows() == A.rows() && C.cols() == B.cols());
  product(plain(A), plain(B), C.data().data(), C.cols(), A.rows(), B.cols(),
          A.cols(), alpha, beta_of(mode), pool);
}

void add_gram(ConstMatrixView X, float alpha, MatrixView<float> C,
              ThreadPool& pool) {
  const std::size_t n = X.cols();
  assert(C.rows() == n && C.cols() == n);
  if (n == 0 || X.rows() == 0) return;
  const std::size_t side = tile(n, n, X.rows()).rows;
  const auto parts = lower_parts(ceil_div(n, side));
  const auto ld = blas_int(n), tokens = blas_int(X.rows());
  pool.for_each(parts.size(), [&](std::size_t index) {
    use_one_blas_thread();
    const std::size_t i = parts[index].i * side, j = parts[index].j * side;
    const auto rows = blas_int(std::min(side, n - i));
    const float* x = X.data().data();
    float* c = C.data().data() + i * n + j;
    if (i == j) {
      cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, rows, tokens, alpha,
                  x + i, ld, 1.0f, c, ld);
    } else {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, blas_int(side),
                  tokens, alpha, x + i, ld, x + j, ld, 1.0f, c, ld);
    }
  });
  mirror_lower_in_place(C, pool);
}

void add_cross_gram(ConstMatrixView X, ConstMatrixView Y, float alpha,
                    MatrixView<float> C, ThreadPool& pool) {
  assert(X.rows() == Y.rows() && C.rows() == X.cols() && C.cols() == Y.cols());
  product(transposed(X), plain(Y), C.data().data(), C.cols(), X.cols(),
          Y.cols(), X.rows(), alpha, 1.0f, pool);
}

void matmul_tail(ConstMatrixView A, ConstMatrixView B, std::size_t c0,
                 MatrixView<float> C, ThreadPool& pool, float alpha) {
  assert(A.cols() == B.rows() && C.rows() == A.rows() && C.cols() == B.cols());
  assert(c0 <= B.cols());
  if (c0 == B.cols() || A.rows() == 0 || A.cols() == 0) return;
  const Operand tail{B.data().data() + c0, B.cols(), CblasNoTrans};
  const std::size_t m = A.rows(), n = B.cols() - c0;
  const Tiling t{kRowsOfTail, kTile, ceil_div(m, kRowsOfTail),
                 ceil_div(n, kTile)};
  product(t, plain(A), tail, C.data().data() + c0, C.cols(), m, n, A.cols(),
          alpha, 1.0f, pool);
}

std::string blas_core_name() {
  link_blas_core_type();
  return openblas_get_corename();
}

}  // namespace llmpress

// The factorizations of linalg.h.
#include <cblas.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>
#include <vector>

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

// Columns factored at a time, and the side of the tiles updated after that: both
// count from the first row and column, whoever works on them.
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

// Factors and inverts a matrix that every rank has, each rank its part of every
// step: what a later step needs goes to all as soon as it is there, so that
// every number is found by one rank, the same one as if it were alone.
class SpreadFactor {
 public:
  SpreadFactor(Square A, ThreadPool& pool, const Ranks& ranks)
      : A_(A), pool_(pool), ranks_(ranks) {}

  // Replaces the lower triangle of A by L with A = L L^T; false if a pivot
  // fails.
  bool factor() {
    for (std::size_t begin = 0; begin < A_.n; begin += kPanel) {
      const std::size_t end = std::min(A_.n, begin + kPanel);
      if (!factor_diagonal_together(begin, end)) return false;
      if (end == A_.n) break;
      solve_panel(begin, end);
      for (std::size_t r = end; r < A_.n; r = next_tile(r)) {
        share(r, next_tile(r), begin, end, tile_owner(r, begin));
      }
      update_trailing(begin, end);
    }
    return true;
  }

  // Replaces L, whose upper triangle is 0, by L^-1, panel by panel of columns
  // from the last: below the panel's block L11, with X22 the inverse of what
  // lies right of it, X21 = -X22 L21 L11^-1; in its place L11^-1. A row of X
  // needs of X only itself, so ranks find rows.
  void invert() {
    const std::size_t panels = ceil_div(A_.n, kPanel);
    for (std::size_t panel = panels; panel-- > 0;) {
      invert_panel(panel * kPanel, std::min(A_.n, (panel + 1) * kPanel));
    }
    for (std::size_t panel = 0; panel < panels; ++panel) {
      const std::size_t r = panel * kPanel, end = std::min(A_.n, r + kPanel);
      share(r, end, 0, end, row_owner(panel));
    }
  }

 private:
  std::size_t next_tile(std::size_t i) const {
    return std::min(A_.n, i / kUpdateTile * kUpdateTile + kUpdateTile);
  }
  // Of the tile around row r, column c.
  std::size_t tile_owner(std::size_t r, std::size_t c) const {
    return ranks_.owner(r / kUpdateTile + c / kUpdateTile);
  }
  // Of a panel's rows of the inverse, whose work grows with the panel: there
  // and back, so that no rank always gets the longer ones.
  std::size_t row_owner(std::size_t panel) const {
    const std::size_t turn = panel % (2 * ranks_.size());
    return turn < ranks_.size() ? turn : 2 * ranks_.size() - 1 - turn;
  }

  // Rows [r0, r1), columns [c0, c1) of `root`, to all.
  void share(std::size_t r0, std::size_t r1, std::size_t c0, std::size_t c1,
             std::size_t root) {
    if (!ranks_.is_spread()) return;
    MatrixF block(r1 - r0, c1 - c0);
    if (ranks_.rank() == root) {
      for (std::size_t r = r0; r < r1; ++r) {
        std::copy_n(A_.at(r, c0), c1 - c0, block.row(r - r0).begin());
      }
    }
    ranks_.broadcast(block.data(), root);
    if (ranks_.rank() == root) return;
    for (std::size_t r = r0; r < r1; ++r) {
      std::ranges::copy(block.row(r - r0), A_.at(r, c0));
    }
  }

  bool factor_diagonal_together(std::size_t begin, std::size_t end) {
    const std::size_t root = tile_owner(begin, begin);
    bool factored = true;
    if (ranks_.rank() == root) {
      factored = factor_diagonal(A_, begin, end - begin);
      // A pivot that no factor has tells the others.
      if (!factored) *A_.at(begin, begin) = 0;
    }
    share(begin, end, begin, end, root);
    return factored && *A_.at(begin, begin) > 0;
  }

  // Own rows below the block: A21 <- A21 L11^-T.
  void solve_panel(std::size_t begin, std::size_t end) {
    const std::size_t first = end / kPanel;
    pool_.for_each(ceil_div(A_.n, kPanel) - first, [&](std::size_t index) {
      const std::size_t r = (first + index) * kPanel;
      if (tile_owner(r, begin) != ranks_.rank()) return;
      use_one_blas_thread();
      cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans,
                  CblasNonUnit, blas_int(std::min(kPanel, A_.n - r)),
                  blas_int(end - begin), 1.0f, A_.at(begin, begin),
                  blas_int(A_.n), A_.at(r, begin), blas_int(A_.n));
    });
  }

  // Own tiles of the trailing lower triangle: A22 <- A22 - A21 A21^T.
  void update_trailing(std::size_t begin, std::size_t end) {
    struct Tile {
      std::size_t r, c;
    };
    std::vector<Tile> own;
    for (std::size_t r = end; r < A_.n; r = next_tile(r)) {
      for (std::size_t c = end; c <= r; c = next_tile(c)) {
        if (tile_owner(r, c) == ranks_.rank()) own.push_back({r, c});
      }
    }
    const auto width = blas_int(end - begin), stride = blas_int(A_.n);
    pool_.for_each(own.size(), [&](std::size_t index) {
      use_one_blas_thread();
      const auto [r, c] = own[index];
      const auto rows = blas_int(next_tile(r) - r);
      if (r == c) {
        cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, rows, width, -1.0f,
                    A_.at(r, begin), stride, 1.0f, A_.at(r, c), stride);
      } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows,
                    blas_int(next_tile(c) - c), width, -1.0f, A_.at(r, begin),
                    stride, A_.at(c, begin), stride, 1.0f, A_.at(r, c), stride);
      }
    });
  }

  // Own rows of columns [begin, end).
  void invert_panel(std::size_t begin, std::size_t end) {
    const auto width = blas_int(end - begin), stride = blas_int(A_.n);
    MatrixF below(A_.n - end, end - begin);
    for (std::size_t r = end; r < A_.n; ++r) {
      std::copy_n(A_.at(r, begin), end - begin, below.row(r - end).begin());
    }
    const std::size_t first = ceil_div(end, kPanel);
    const std::size_t panels = ceil_div(A_.n, kPanel);
    pool_.for_each(panels - first, [&](std::size_t index) {
      const std::size_t panel = first + index, r = panel * kPanel;
      if (row_owner(panel) != ranks_.rank()) return;
      const std::size_t rows = std::min(kPanel, A_.n - r);
      use_one_blas_thread();
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas_int(rows),
                  width, blas_int(r + rows - end), -1.0f, A_.at(r, end), stride,
                  below.data().data(), width, 0.0f, A_.at(r, begin), stride);
      cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans,
                  CblasNonUnit, blas_int(rows), width, 1.0f,
                  A_.at(begin, begin), stride, A_.at(r, begin), stride);
    });
    if (row_owner(begin / kPanel) != ranks_.rank()) return;
    use_one_blas_thread();
    const int n = width;
    int info = 0;
    // LAPACK is column-major: its upper triangle is our lower one.
    strtri_("U", "N", &n, A_.at(begin, begin), &stride, &info, 1, 1);
    assert(info == 0);  // no pivot of a factor is 0
  }

  const Square A_;
  ThreadPool& pool_;
  const Ranks ranks_;
};

bool factor_in_place(Square A, ThreadPool& pool) {
  return SpreadFactor(A, pool, {}).factor();
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

std::optional<MatrixF> inverse_cholesky_upper(MatrixF A, ThreadPool& pool,
                                              const Ranks& ranks) {
  assert(A.rows() == A.cols());
  reverse_in_place(A, pool);
  const Square square{A.data().data(), A.rows()};
  SpreadFactor spread(square, pool, ranks);
  if (!spread.factor()) return std::nullopt;
  clear_above_diagonal(square, pool);
  spread.invert();
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

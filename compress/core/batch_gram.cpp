#include "compress/core/batch_gram.h"

#include <cblas.h>

#include <algorithm>
#include <cassert>
#include <vector>

#include "compress/core/blas.h"
#include "compress/core/checked.h"

namespace llmpress {
namespace {

// A multiple of every side of a tile of a larger matrix.
constexpr std::size_t kPanelRows = 512;
constexpr std::size_t kSmallestTile = 64, kEnoughTiles = 16;
// Below this many multiplications the whole product is one tile.
constexpr double kSmallProduct = 64.0 * 64.0 * 64.0;

// Of a tile of an [n, n] matrix: it depends on nothing but the shape.
std::size_t tile_side(std::size_t n, std::size_t rows) {
  const auto size = static_cast<double>(n);
  if (size * size * static_cast<double>(rows) <= kSmallProduct) return n;
  std::size_t side = std::min(n, kPanelRows);
  while (side > kSmallestTile &&
         ceil_div(n, side) * ceil_div(n, side) < kEnoughTiles) {
    side = ceil_div(side, 2);
  }
  return std::min(n, ceil_div(side, 16) * 16);
}

struct Tile {
  std::size_t i, j, rows, cols;
  bool diagonal;  // of a symmetric matrix
};

std::vector<Tile> tiles_of(std::size_t n, std::size_t side,
                           const GramPanel& panel, GramShape shape) {
  std::vector<Tile> tiles;
  for (std::size_t i = panel.first; i < panel.first + panel.count; i += side) {
    const std::size_t end = shape == GramShape::kSymmetric ? i + 1 : n;
    for (std::size_t j = 0; j < end; j += side) {
      tiles.push_back({i, j, std::min(side, n - i), std::min(side, n - j),
                       shape == GramShape::kSymmetric && i == j});
    }
  }
  return tiles;
}

// The tile of alpha X^T Y into `out` (row stride `ld`), which holds zeros.
void compute(ConstMatrixView X, ConstMatrixView Y, float alpha,
             const Tile& tile, float* out, std::size_t ld) {
  use_one_blas_thread();
  const auto n = blas_int(X.cols()), rows = blas_int(X.rows());
  const float* const x = X.data().data() + tile.i;
  if (tile.diagonal) {
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, blas_int(tile.rows),
                rows, alpha, x, n, 0.0f, out, blas_int(ld));
  } else {
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, blas_int(tile.rows),
                blas_int(tile.cols), rows, alpha, x, n,
                Y.data().data() + tile.j, n, 0.0f, out, blas_int(ld));
  }
}

void add_tiles(ConstMatrixView X, ConstMatrixView Y, float alpha,
               GramShape shape, MatrixView<float> C, ThreadPool& pool) {
  const std::size_t n = X.cols();
  assert(Y.cols() == n && Y.rows() == X.rows());
  assert(C.rows() == n && C.cols() == n);
  if (n == 0 || X.rows() == 0) return;
  const auto tiles = tiles_of(n, tile_side(n, X.rows()), {0, n, n}, shape);
  pool.for_each(tiles.size(), [&](std::size_t index) {
    const Tile& tile = tiles[index];
    std::vector<float> G(tile.rows * tile.cols);
    compute(X, Y, alpha, tile, G.data(), tile.cols);
    for (std::size_t r = 0; r < tile.rows; ++r) {
      const std::size_t cols = tile.diagonal ? r + 1 : tile.cols;
      float* const c = C.row(tile.i + r).data() + tile.j;
      const float* const g = G.data() + r * tile.cols;
      for (std::size_t k = 0; k < cols; ++k) c[k] += g[k];
    }
  });
}

void panel_tiles(ConstMatrixView X, ConstMatrixView Y, float alpha,
                 GramShape shape, const GramPanel& panel, MatrixView<float> G,
                 ThreadPool& pool) {
  const std::size_t n = X.cols();
  assert(Y.cols() == n && Y.rows() == X.rows());
  assert(G.rows() == panel.count && G.cols() == panel.cols);
  std::ranges::fill(G.data(), 0.0f);
  if (panel.size() == 0 || X.rows() == 0) return;
  const auto tiles = tiles_of(n, tile_side(n, X.rows()), panel, shape);
  pool.for_each(tiles.size(), [&](std::size_t index) {
    const Tile& tile = tiles[index];
    compute(X, Y, alpha, tile, G.row(tile.i - panel.first).data() + tile.j,
            panel.cols);
  });
}

}  // namespace

void add_batch_gram(ConstMatrixView X, float alpha, MatrixView<float> C,
                    ThreadPool& pool) {
  add_tiles(X, X, alpha, GramShape::kSymmetric, C, pool);
}

void add_batch_cross_gram(ConstMatrixView X, ConstMatrixView Y, float alpha,
                          MatrixView<float> C, ThreadPool& pool) {
  add_tiles(X, Y, alpha, GramShape::kFull, C, pool);
}

void mirror_lower_in_place(MatrixView<float> C, ThreadPool& pool) {
  constexpr std::size_t kBlock = 64;
  const std::size_t n = C.rows();
  assert(C.cols() == n);
  pool.for_ranges(n, kBlock, [&](std::size_t begin, std::size_t end) {
    for (std::size_t c0 = begin; c0 < n; c0 += kBlock) {
      for (std::size_t r = begin; r < end; ++r) {
        for (std::size_t c = std::max(c0, r + 1); c < std::min(n, c0 + kBlock);
             ++c) {
          C(r, c) = C(c, r);
        }
      }
    }
  });
}

std::size_t gram_panels(std::size_t n) { return ceil_div(n, kPanelRows); }

GramPanel gram_panel(std::size_t n, std::size_t index, GramShape shape) {
  const std::size_t first = index * kPanelRows;
  const std::size_t count = std::min(kPanelRows, n - first);
  return {first, count, shape == GramShape::kSymmetric ? first + count : n};
}

void batch_gram_panel(ConstMatrixView X, float alpha, const GramPanel& panel,
                      MatrixView<float> G, ThreadPool& pool) {
  panel_tiles(X, X, alpha, GramShape::kSymmetric, panel, G, pool);
}

void batch_cross_gram_panel(ConstMatrixView X, ConstMatrixView Y, float alpha,
                            const GramPanel& panel, MatrixView<float> G,
                            ThreadPool& pool) {
  panel_tiles(X, Y, alpha, GramShape::kFull, panel, G, pool);
}

}  // namespace llmpress

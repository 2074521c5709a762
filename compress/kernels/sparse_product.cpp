#include "compress/kernels/sparse_product.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <stdexcept>

#include "compress/core/checked.h"
#include "compress/kernels/target.h"

namespace llmpress {
namespace {

constexpr std::size_t kLanes = 16;
constexpr std::size_t kFewTokens = 4;
// Many tokens: tiles of W [kTileRows, kTileSteps * 16] against 32 tokens.
constexpr std::size_t kTileRows = 48;
constexpr std::size_t kTileSteps = 16;
constexpr std::size_t kPanelTokens = 32;

// 32 tokens at a time [in, width], the last panel narrower but a multiple of 16
// wide; zeros fill it up, and the columns of W's last step.
struct TokenPanels {
  std::size_t depth;
  std::vector<std::size_t> first{};  // tokens, panels + 1
  AlignedBuffer data{};

  std::size_t width(std::size_t panel) const {
    return ceil_div(first[panel + 1] - first[panel], kLanes) * kLanes;
  }
  float* panel(std::size_t index) {
    return reinterpret_cast<float*>(data.data()) + index * kPanelTokens * depth;
  }
  const float* panel(std::size_t index) const {
    return reinterpret_cast<const float*>(data.data()) +
           index * kPanelTokens * depth;
  }
  std::size_t panels() const { return first.size() - 1; }
};

TokenPanels pack_tokens(ConstMatrixView X, std::size_t depth,
                        ThreadPool& pool) {
  TokenPanels packed{.depth = depth};
  for (std::size_t t = 0; t < X.rows(); t += kPanelTokens) {
    packed.first.push_back(t);
  }
  packed.first.push_back(X.rows());
  packed.data =
      AlignedBuffer(packed.panels() * kPanelTokens * depth * sizeof(float));
  pool.for_each(packed.panels(), [&](std::size_t i) {
    const std::size_t width = packed.width(i);
    float* const to = packed.panel(i);
    for (std::size_t t = packed.first[i]; t < packed.first[i + 1]; ++t) {
      const auto x = X.row(t);
      float* p = to + (t - packed.first[i]);
      for (std::size_t k = 0; k < x.size(); ++k, p += width) *p = x[k];
    }
  });
  return packed;
}

// Rows [begin, end) of W, at most kTileRows, times all tokens.
void multiply_rows(const SparsePanels& W, std::size_t begin, std::size_t end,
                   const TokenPanels& X, const SparseKernels& kernels,
                   MatrixView<float> Y) {
  constexpr std::size_t kTileColumns = kTileSteps * kLanes;
  const std::size_t rows = end - begin;
  std::vector<SparseCursor> cursors(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    cursors[r] = {.row = begin + r};
    if (W.in_pairs) continue;
    cursors[r].next =
        W.values.data() + W.row_offsets[begin + r] * bytes_of_value(W.type);
  }
  std::vector<float> tile(kTileRows * kTileColumns);
  std::vector<float> C(X.panels() * kPanelTokens * kTileRows);
  for (std::size_t step = 0; step < W.steps; step += kTileSteps) {
    const std::size_t steps = std::min(kTileSteps, W.steps - step);
    for (std::size_t r = 0; r < rows; ++r) {
      kernels.expand(W, cursors[r], steps, tile.data() + r * kTileColumns);
    }
    for (std::size_t i = 0; i < X.panels(); ++i) {
      kernels.add_product(tile.data(), kTileColumns, rows, steps * kLanes,
                          X.panel(i) + step * kLanes * X.width(i), X.width(i),
                          C.data() + i * kPanelTokens * kTileRows);
    }
  }
  for (std::size_t i = 0; i < X.panels(); ++i) {
    const float* const c = C.data() + i * kPanelTokens * kTileRows;
    for (std::size_t t = X.first[i]; t < X.first[i + 1]; ++t) {
      for (std::size_t r = 0; r < rows; ++r) {
        Y(t, begin + r) = c[r * X.width(i) + (t - X.first[i])];
      }
    }
  }
}

}  // namespace

void multiply_sparse(const SparsePanels& W, ConstMatrixView X,
                     MatrixView<float> Y, ThreadPool& pool, Isa isa) {
  assert(X.cols() == W.in && Y.cols() == W.out && X.rows() == Y.rows());
  const SparseKernels& kernels = sparse_kernels(isa);
  const std::size_t depth = W.steps * kLanes;
  if (X.rows() > kFewTokens) {
    const TokenPanels packed = pack_tokens(X, depth, pool);
    pool.for_ranges(W.out, kTileRows, [&](std::size_t begin, std::size_t end) {
      multiply_rows(W, begin, end, packed, kernels, Y);
    });
    return;
  }
  AlignedBuffer padded(X.rows() * depth * sizeof(float));
  auto* const x = reinterpret_cast<float*>(padded.data());
  const float* rows[kFewTokens] = {};
  for (std::size_t t = 0; t < X.rows(); ++t) {
    std::copy_n(X.row(t).data(), W.in, x + t * depth);
    std::fill(rows + t, rows + kFewTokens, x + t * depth);
  }
  pool.for_ranges(W.out, 16, [&](std::size_t begin, std::size_t end) {
    kernels.multiply_few(W, begin, end, rows, X.rows(), Y.data().data(), W.out);
  });
}

const SparseKernels& sparse_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return sparse_kernels_avx2();
  if (isa == Isa::kAvx512) return sparse_kernels_avx512();
#endif
  (void)isa;
  throw std::logic_error("sparse_kernels: none for this instruction set");
}

}  // namespace llmpress

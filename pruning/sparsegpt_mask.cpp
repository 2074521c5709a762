#include "pruning/sparsegpt_mask.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "pruning/mask.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 16;  // rows a thread takes at a time

}  // namespace

SparseGptMask::SparseGptMask(const PruneConfig& config, double sparsity,
                             ConstMatrixView U, MatrixView<std::uint8_t> mask,
                             ThreadPool& pool)
    : config_(config),
      sparsity_(sparsity),
      diagonal_(U.rows()),
      mask_(mask),
      pool_(pool) {
  assert(mask.cols() == U.rows());
  for (std::size_t i = 0; i < diagonal_.size(); ++i) diagonal_[i] = U(i, i);
}

std::size_t SparseGptMask::block_size() const {
  const std::size_t of = config_.patterned() ? config_.of : 1;
  return std::max(of, config_.block_size / of * of);
}

ColumnCompressor SparseGptMask::compressor() {
  return {.begin_block =
              [this](std::size_t begin, std::size_t end, ConstMatrixView W) {
                if (!config_.patterned()) choose_block(begin, end, W);
              },
          .compress =
              [this](const ColumnWindow& window, std::span<float> column) {
                if (config_.patterned() && window.column % config_.of == 0) {
                  choose_pattern(window);
                }
                zero(window, column);
              }};
}

// The square root of w^2 / U_ii^2: the same order, and no overflow.
float SparseGptMask::removal_cost(float w, std::size_t column) const {
  return std::abs(w) / diagonal_[column];
}

void SparseGptMask::choose_block(std::size_t begin, std::size_t end,
                                 ConstMatrixView W) {
  const std::size_t columns = end - begin;
  MatrixF costs(W.rows(), columns);
  Matrix<std::uint8_t> chosen(W.rows(), columns);
  pool_.for_ranges(W.rows(), kGrain, [&](std::size_t r0, std::size_t r1) {
    for (std::size_t o = r0; o < r1; ++o) {
      const auto w = W.row(o).subspan(begin, columns);
      const auto cost = costs.row(o);
      for (std::size_t j = 0; j < columns; ++j) {
        cost[j] = removal_cost(w[j], begin + j);
      }
    }
  });
  mask_lowest(costs.view(), rank_threshold_count(costs.size(), sparsity_),
              chosen.view(), pool_);
  pool_.for_ranges(W.rows(), kGrain, [&](std::size_t r0, std::size_t r1) {
    for (std::size_t o = r0; o < r1; ++o) {
      std::ranges::copy(chosen.row(o), mask_.row(o).subspan(begin).begin());
    }
  });
}

void SparseGptMask::choose_pattern(const ColumnWindow& window) const {
  const std::size_t first = window.column;
  const std::size_t size = std::min(config_.of, window.block_end - first);
  std::vector<float> costs(size);
  for (std::size_t r = 0; r < window.rows; ++r) {
    for (std::size_t j = 0; j < size; ++j) {
      costs[j] = removal_cost(window.at(first + j)[r], first + j);
    }
    mask_pattern(costs, config_.keep, config_.of,
                 mask_.row(window.begin_row + r).subspan(first, size));
  }
}

void SparseGptMask::zero(const ColumnWindow& window,
                         std::span<float> column) const {
  for (std::size_t r = 0; r < window.rows; ++r) {
    if (mask_(window.begin_row + r, window.column) == 0) column[r] = 0;
  }
}

}  // namespace llmpress

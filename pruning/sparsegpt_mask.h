// SparseGPT's choice of what goes (arXiv:2301.00774, section 3.3), made as the
// column solver comes to it. Of all weights of a block of columns those with
// the lowest cost of removal
//
//   w^2 / U_ii^2       (Eq. 3; U from column_solver.h)
//
// are masked: one threshold for all rows, so that rows and columns share the
// sparsity as they can bear it. With a pattern, all but `keep` of every `of`
// are, chosen when the first of them is reached.
//
// As a ColumnCompressor it goes in front of any other: in_sequence(mask, round)
// sparsifies and quantizes in one pass (section 3.5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "compress/core/column_solver.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "pruning/prune_config.h"

namespace llmpress {

class SparseGptMask {
 public:
  // Writes `mask` [out, in]: 1 kept, 0 masked. U [in, in] is read here only;
  // the other arguments must outlive this object, and this object its
  // compressor.
  SparseGptMask(const PruneConfig& config, double sparsity, ConstMatrixView U,
                MatrixView<std::uint8_t> mask, ThreadPool& pool);

  // For the column solver: config.block_size in whole patterns, which are
  // chosen from weights of one block.
  std::size_t block_size() const;

  // Sets masked weights to 0 and leaves the others.
  ColumnCompressor compressor();

 private:
  void choose_block(std::size_t begin, std::size_t end, ConstMatrixView W);
  void choose_pattern(const ColumnWindow& window) const;
  void zero(const ColumnWindow& window, std::span<float> column) const;
  float removal_cost(float w, std::size_t column) const;

  const PruneConfig& config_;
  double sparsity_;
  std::vector<float> diagonal_;  // of U [in]
  MatrixView<std::uint8_t> mask_;
  ThreadPool& pool_;
};

}  // namespace llmpress

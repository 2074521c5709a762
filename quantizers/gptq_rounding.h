// What GPTQ makes of a column: codes on the grid of its group, the grid fitted
// when the group's first column is reached.
#pragma once

#include <utility>

#include "compress/core/column_solver.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "quantizers/gptq_order.h"
#include "quantizers/int_grid.h"

namespace llmpress {

class GptqRounding {
 public:
  // `fixed` holds the grids if order.fixed_grids, else it is not read. Where
  // `mask` [out, in] (or empty), in the order of W's columns, is 0 the result
  // is 0. The arguments must outlive this object, which must outlive
  // compressor().
  GptqRounding(std::size_t out, const GptqOrder& order,
               const WeightScheme& scheme, const IntGrids& fixed,
               MatrixView<const std::uint8_t> mask, ThreadPool& pool);

  ColumnCompressor compressor();

  // After the solve: codes [out, in] and grids in the order of W's columns.
  Matrix<std::uint8_t> take_codes() { return std::move(codes_); }
  IntGrids grids(std::size_t group_size) const;

 private:
  void begin_block(std::size_t begin, std::size_t end, ConstMatrixView W);
  void compress(const ColumnWindow& window, std::span<float> column);
  void fit_window(const ColumnWindow& window);
  void set_grid(std::size_t group, std::size_t row, const IntGrid& grid);

  const GptqOrder& order_;
  const WeightScheme& scheme_;
  MatrixView<const std::uint8_t> mask_;
  ThreadPool& pool_;
  Matrix<std::uint8_t> codes_;  // [out, in]
  MatrixF scales_, zeros_;      // [groups, out], so that a column is contiguous
  std::vector<std::uint8_t> fitted_;  // [in] by begin_block, of this block
};

}  // namespace llmpress

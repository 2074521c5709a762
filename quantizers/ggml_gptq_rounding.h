// What GPTQ makes of a column on a block type of GGUF: when the first column of
// a block is reached, its scales and minima are searched for the weights as they
// then are, under the importance of the inputs (diag H), and rounded as they are
// stored; each column goes to the nearest value of that grid and the later ones
// pay. Differs from GPTQ on integer groups only in the grid. Of types with
// codebooks (ggml_grid_rounding.h) eight columns are chosen together when the
// first of them is reached, and paid for one by one.
#pragma once

#include "compress/core/column_solver.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/packed_weight.h"

namespace llmpress {

class GgmlGptqRounding {
 public:
  // `importance` [in], all of it positive or 0. Lazy batches must be of the
  // block's elements. The arguments must outlive this object, which must
  // outlive compressor().
  GgmlGptqRounding(std::size_t out, std::size_t in, GgmlType type,
                   std::span<const float> importance, ThreadPool& pool);

  ColumnCompressor compressor();
  GgmlWeight take_weight() { return std::move(weight_); }  // after the solve

 private:
  void begin_block(std::size_t begin, ConstMatrixView W);
  void compress(const ColumnWindow& window, std::span<float> column);
  float round(std::size_t row, std::size_t i, float w);
  // Codes of the eight columns from window.column on, of row r of the window.
  void choose_point(const ColumnWindow& window, std::size_t r);

  const GgmlLayout& layout_;
  std::span<const float> importance_;
  ThreadPool& pool_;
  GgmlWeight weight_;
  std::size_t begin_ = 0;            // of the block
  std::vector<GgmlBlock> blocks_{};  // [out], of the block
};

// The code of the nearest value w of a sub-block.
std::uint8_t nearest_block_code(const GgmlLayout& layout, float scale,
                                float minimum, float w);

}  // namespace llmpress

// The parts of dense products for one instruction set.
#pragma once

#include <cstddef>

#include "compress/kernels/cpu.h"

namespace llmpress {

// A stretch of the sum that is held in registers; a panel of B of this depth
// fits the first level cache.
inline constexpr std::size_t kDenseDepth = 256;

// How the left side of a product lies.
enum class DenseLayout {
  kRows,     // rows `a_stride` floats apart
  kColumns,  // columns `a_stride` floats apart
  kPanels,   // panels [depth, tile_rows] one after another
};

// C [rows, cols] = or += A [rows, depth] B [depth, cols].
struct DenseBlock {
  DenseLayout layout = DenseLayout::kRows;
  const float* a = nullptr;
  std::size_t a_stride = 0;
  const float* b = nullptr;  // panels [depth, panel_cols]
  std::size_t b_panel = 0;   // floats from panel to panel
  float* c = nullptr;
  std::size_t c_stride = 0;
  std::size_t rows = 0, cols = 0, depth = 0;
  bool accumulate = false;
};

// Copies a part [depth, columns] of an operand into panels of as many columns
// as a tile has rows (of A) or columns (of B), zeros behind the last one.
struct DensePacking {
  const float* from = nullptr;
  std::size_t stride = 0;  // floats from row to row in memory
  std::size_t depth = 0, columns = 0;
  float* to = nullptr;
  std::size_t panel = 0;  // floats from panel to panel
};

struct DenseKernels {
  std::size_t tile_rows, panel_cols;
  void (*multiply)(const DenseBlock& block);
  // Whose rows in memory are rows of the part.
  void (*pack_a_transposed)(const DensePacking& packing);
  void (*pack_b)(const DensePacking& packing);
  // Whose rows in memory are its columns.
  void (*pack_b_transposed)(const DensePacking& packing);
};

// Null for kScalar.
const DenseKernels* dense_kernels(Isa isa);
const DenseKernels& dense_kernels_avx2();
const DenseKernels& dense_kernels_avx512();

}  // namespace llmpress

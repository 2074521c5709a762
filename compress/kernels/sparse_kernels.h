// A sparse weight prepared for vectors, and the functions of one instruction
// set on it, 16 columns at a time.
//
// By a mask: the kept numbers of a row are one stream, and the mask says which
// lanes take the next ones.
//
// 2:4, in pairs of rows: of each four columns the two numbers of one row and the
// two of the next lie side by side, so that 16 columns of both fill a vector,
// with two bits each for the column within the four. Four lanes of inputs are
// then permuted among themselves, without anything that depends on the step
// before (the layout of mma.sp, arXiv:2104.08378, for a processor's vectors).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

enum class SparseValues { kF32, kF16, kBF16, kCodes };

struct SparsePanels {
  std::size_t out = 0, in = 0;
  std::size_t steps = 0;  // of 16 columns, the last one filled up
  SparseValues type = SparseValues::kF32;
  bool in_pairs = false;
  // Masks of 16 bit [out, steps]; of pairs 2-bit columns in words of 32
  // [pairs, steps], lane i of a vector at bit 2 i.
  AlignedBuffer masks{};
  // [kept] and slack for a load; of pairs [pairs, steps, 16].
  AlignedBuffer values{};
  std::vector<std::uint64_t> row_offsets{};  // [out + 1] into values, by a mask
  // Of kCodes: w = s (code - z), one of both a group of whole steps.
  std::size_t groups = 0;
  std::vector<std::uint32_t> group_of{};  // [steps]
  // [out, groups]; of pairs [pairs, groups, 4]: both of the first row twice,
  // then of the second.
  std::vector<float> scales{}, zeros{};

  std::size_t pairs() const { return (out + 1) / 2; }

  std::size_t bytes() const;
};

// Reads on where row `row` stood after `step` steps: its next number.
struct SparseCursor {
  std::size_t row = 0, step = 0;
  const std::byte* next = nullptr;
};

struct SparseKernels {
  // y[t * y_stride + o] for rows o of [begin, end): rows[t] of 16 * steps, at
  // most four, the last pointer repeated to four. In pairs, `begin` is even.
  void (*multiply_few)(const SparsePanels& W, std::size_t begin,
                       std::size_t end, const float* const* rows,
                       std::size_t tokens, float* y, std::size_t y_stride);
  // The next `steps` steps of a row as dense floats.
  void (*expand)(const SparsePanels& W, SparseCursor& cursor, std::size_t steps,
                 float* dense);
  // C [rows, width] += A [rows, depth], of row stride a_stride, times B [depth,
  // width]; width is a multiple of 16.
  void (*add_product)(const float* A, std::size_t a_stride, std::size_t rows,
                      std::size_t depth, const float* B, std::size_t width,
                      float* C);
};

// `isa` is not kScalar.
const SparseKernels& sparse_kernels(Isa isa);
const SparseKernels& sparse_kernels_avx2();
const SparseKernels& sparse_kernels_avx512();

}  // namespace llmpress

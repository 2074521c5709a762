// A sparse weight prepared for vectors, and the functions of one instruction
// set on it. The kept numbers of a row are one stream; 16 columns at a time,
// their mask says which lanes take the next ones.
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
  AlignedBuffer masks{};                     // [out, steps] of 16 bit
  AlignedBuffer values{};                    // [kept] and slack for a load
  std::vector<std::uint64_t> row_offsets{};  // [out + 1] into values
  // Of kCodes: w = s (code - z), one pair a group of whole steps.
  std::size_t groups = 0;
  std::vector<std::uint32_t> group_of{};  // [steps]
  std::vector<float> scales{}, zeros{};   // [out, groups]

  std::size_t bytes() const;
};

// Reads on where row `row` stood after `step` steps: its next number.
struct SparseCursor {
  std::size_t row = 0, step = 0;
  const std::byte* next = nullptr;
};

struct SparseKernels {
  // y[t * y_stride + o] for rows o of [begin, end): rows[t] of 16 * steps, at
  // most four, the last pointer repeated to four.
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

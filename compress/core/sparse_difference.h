// A change of a weight W [out, in] that is 0 but in few places: W + D.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct SparseDifference {
  std::size_t rows = 0, cols = 0;
  std::vector<std::uint32_t> indices{};  // o * cols + i, ascending
  std::vector<float> values{};           // as many

  bool empty() const { return indices.empty(); }

  bool operator==(const SparseDifference&) const = default;
};

// Numbers that are not 0. Throws Error(kUnsupported) beyond 2^32 of them.
SparseDifference sparse_difference(ConstMatrixView D);

// The magnitude that `count` of the numbers of all `parts` reach, 0 if there
// are no more that are not 0. Those that are equal to it may be more.
float largest_magnitudes(std::span<const std::span<const float>> parts,
                         std::size_t count);

// W += weight * D. Throws Error(kInvalidArgument) for another shape.
void add_in_place(const SparseDifference& D, double weight,
                  MatrixView<float> W);

// Y [tokens, out] += weight * X D^T, X [tokens, in].
void apply_in_place(const SparseDifference& D, double weight, ConstMatrixView X,
                    MatrixView<float> Y, ThreadPool& pool);

}  // namespace llmpress

// Choosing which weights go, by scores: the lowest of a whole matrix, of each
// row, or of every m in a row. Where scores tie, the earlier position goes
// first, so that the number removed is exact and the choice is the same
// everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// How many of `count` weights the authors' codes of SparseGPT and magnitude
// pruning remove: all up to and including the one of rank int(count *
// sparsity), so one more than that; 0 at sparsity 0.
std::size_t rank_threshold_count(std::size_t count, double sparsity);

// mask [scores.size()] becomes 0 for the `remove` lowest scores, 1 for others.
// Scores are not negative; a NaN counts as above all others.
void mask_lowest(std::span<const float> scores, std::size_t remove,
                 std::span<std::uint8_t> mask);

// The same for a large matrix, in parallel. scores [rows, cols].
void mask_lowest(ConstMatrixView scores, std::size_t remove,
                 MatrixView<std::uint8_t> mask, ThreadPool& pool);

// `keep` of every aligned `of` scores stay; of a shorter rest at most `keep`.
void mask_pattern(std::span<const float> scores, std::size_t keep,
                  std::size_t of, std::span<std::uint8_t> mask);

// Zeros / elements; 0 for an empty mask.
double sparsity_of(MatrixView<const std::uint8_t> mask);

}  // namespace llmpress

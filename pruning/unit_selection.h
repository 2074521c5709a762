// Which units stay, and the matrices without the others.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/matrix.h"

namespace llmpress {

// Units left when `fraction` of them go: never fewer than asked to stay,
// rounded up to a multiple of `multiple_of` (or to all), at least one. Throws
// Error(kInvalidArgument) unless 0 <= fraction < 1 and multiple_of >= 1.
std::size_t kept_count(std::size_t units, double fraction,
                       std::size_t multiple_of = 1);

// The `count` most important units in ascending order; of equal ones the first.
// Throws Error(kNumeric) if an importance is not finite.
std::vector<std::size_t> keep_most_important(std::span<const double> importance,
                                             std::size_t count);

// Rows or columns of units of `width`: unit u is [u * width, (u + 1) * width).
std::vector<std::size_t> expand_units(std::span<const std::size_t> units,
                                      std::size_t width);

// 0 .. count - 1 without `kept`, which ascends.
std::vector<std::size_t> complement(std::span<const std::size_t> kept,
                                    std::size_t count);

// Copies in the order of the indices, each below the size (assert).
MatrixF select_rows(ConstMatrixView W, std::span<const std::size_t> rows);
MatrixF select_columns(ConstMatrixView W, std::span<const std::size_t> columns);
std::vector<float> select_values(std::span<const float> values,
                                 std::span<const std::size_t> indices);

}  // namespace llmpress

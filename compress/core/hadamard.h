// Normalized Hadamard transforms (Sylvester for powers of two, times a Paley
// matrix for n = 2^k m), used by rotations and online at inference.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Whether hadamard_in_place(x) knows this size.
bool hadamard_size_supported(std::size_t n);

// The largest supported block that divides n, for a block-diagonal transform.
std::size_t largest_hadamard_block(std::size_t n);

// x <- H x / sqrt(n), n = x.size(). Throws Error(kUnsupported) for other sizes.
void hadamard_in_place(std::span<float> x);
// The transposed transform, its inverse (H of a Paley factor need not be
// symmetric).
void hadamard_transposed_in_place(std::span<float> x);

// Every row of X in consecutive blocks of `block` columns.
void hadamard_rows_in_place(MatrixView<float> X, std::size_t block,
                            ThreadPool& pool);

}  // namespace llmpress

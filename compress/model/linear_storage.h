// Linears that lie in one tensor together, or transposed (LinearStorage).
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix_view.h"
#include "compress/model/program.h"

namespace llmpress {

// Rows of one of the matrices in the tensor that `spec` lies in.
std::size_t stored_rows(const LinearSpec& spec);
// The matrix of a stack, 0 where there is no stack.
std::size_t stored_index(const LinearSpec& spec);

// W [out, in] to where it belongs among `matrices`, the tensor's numbers:
// matrices [stored_rows, in], or [in, stored_rows], one after another.
void place_weight(const LinearSpec& spec, ConstMatrixView W,
                  std::span<float> matrices);
// A bias [out] likewise, among those of all that share the tensor.
void place_bias(const LinearSpec& spec, std::span<const float> bias,
                std::span<float> biases);

}  // namespace llmpress

// Weights rounded to the types of GGUF with codebooks (compress/core/ggml/
// ggml_grid.h): of each group of 4 or 8 neighbours the point of the grid with
// the least weighted error, found by looking at all of them. For a group with
// weights of its errors w and values v of a point
//
//   sum w (x - s v)^2 = const + s^2 B - 2 s A,   A = sum w x v, B = sum w v^2
//
// so that A and B of all points are made once and serve every scale s. Where
// only an even number of signs can be stored, the sign that costs least of all
// points and places is given up.
// Differs from llama.cpp (ggml-quants.c), which rounds each weight by itself,
// looks for the result in the grid, and tries a few neighbours if it is not
// there.
// Cost: for each weight about 30 sums over the points / group.
#pragma once

#include <span>

#include "compress/core/ggml/ggml_block.h"
#include "compress/core/ggml/ggml_grid.h"

namespace llmpress {

// One block of 256. `weights` [256] of the squared errors.
GgmlBlock fit_grid_block(GgmlType type, std::span<const float> x,
                         std::span<const float> weights);

// What codes of eight neighbours may be: of iq1_s all of a sub-block are of one
// half of the codes, that which a fitted block has.
enum class GridHalf { kAny, kLower, kUpper };

// Codes [8] of the points nearest to x [8] under `weights`, at scale s.
void round_to_grid(GgmlType type, float s, std::span<const float> x,
                   std::span<const float> weights, GridHalf half,
                   std::span<std::uint8_t> codes);

}  // namespace llmpress

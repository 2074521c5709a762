// Rotary position embedding (RoFormer, arXiv:2104.09864, Eq. 34): each pair
// (a, b) of a head's coordinates is turned by the angle position * frequency:
//   a' = a cos - b sin,   b' = b cos + a sin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// Which coordinates of the first `rotary` ones of a head make pair j:
enum class RopeStyle {
  kHalves,  // (j, j + rotary/2): GPT-NeoX, Hugging Face Llama
  kPairs,   // (2j, 2j + 1): GPT-J, the original Llama, GGUF's "norm"
};

// cos and sin of position * inverse_frequency[j], times `scaling` (YaRN's
// attention factor; 1 otherwise). [positions, rotary/2], computed in double.
struct RopeTables {
  MatrixF cos, sin;
};
RopeTables make_rope_tables(std::size_t positions,
                            std::span<const double> inverse_frequency,
                            double scaling = 1.0);

// X [tokens, heads * head_dim]: row t is turned to positions[t], a row of the
// tables. Coordinates of a head from rotary = 2 * tables.cos.cols() on stay.
void apply_rope_in_place(MatrixView<float> X, std::size_t head_dim,
                         std::span<const std::uint32_t> positions,
                         const RopeTables& tables, RopeStyle style,
                         ThreadPool& pool);

// The transposed turn, which takes a gradient of what apply_rope_in_place gives
// to one of what it was given: back by the same angle, times `scaling` again.
void apply_transposed_rope_in_place(MatrixView<float> X, std::size_t head_dim,
                                    std::span<const std::uint32_t> positions,
                                    const RopeTables& tables, RopeStyle style,
                                    ThreadPool& pool);

}  // namespace llmpress

// A weight in the forms that another format holds.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"

namespace llmpress {

// The same numbers as another packed type has them: q4_0, q5_0 and q8_0 are
// symmetric integers in groups of 32, mxfp4 is MXFP4. nullopt: no other has them.
std::optional<PackedWeight> unpacked_from_blocks(const GgmlWeight& weight);

// What `format` may hold in the place of a weight that it does not, the nearest
// first: the same codes with scales and minima in f16 (q4_1, q5_1 of GGUF), else
// the weight rounded to nearest on a grid of the format with at least as many
// bits, as numbers in a format of plain ones. Empty for a Linear whose inputs are
// rotated.
std::vector<PackedWeight> nearest_forms(const LinearWeights& linear,
                                        std::string_view format,
                                        ThreadPool& pool);

// |A - B|_F / |B|_F, row by row; 0 for two zero matrices. The same number at any
// number of threads.
double relative_difference(const PackedWeight& A, const PackedWeight& B,
                           ThreadPool& pool);

}  // namespace llmpress

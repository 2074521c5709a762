// Puts alike items together in groups of one size: groups of neighbours first,
// then exchanges of two items as long as one raises the sum of similarities
// within groups. A local optimum, the same every time; good for the tens of
// heads that attention has. Cost: items^2 * size for each of a few rounds.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/core/matrix.h"

namespace llmpress {

// The items in their new order: the first `size` are the first group, and so
// on; ascending within groups, groups by their first item. similarity [n, n]
// symmetric, finite; n a multiple of `size`.
std::vector<std::size_t> group_alike(const MatrixF& similarity,
                                     std::size_t size);

}  // namespace llmpress

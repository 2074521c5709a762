// Rows of a packed weight as a weight of their own.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/core/ranks.h"

namespace llmpress {

// The finest pieces that `weight` can be cut into, in rows: multiples of
// `wanted` that no block of scales lies across. 0: only whole.
std::size_t row_grain(const PackedWeight& weight, std::size_t wanted);

// W [rows.first + r, i] with the codes and scales that it has, so that every
// number is the same; double quantized scales of 4-bit tables as floats. `rows`
// begins and ends at multiples of row_grain(), or at the end.
PackedWeight take_rows(const PackedWeight& weight, Stretch rows);

// The way back: the rows of each part below those of the one before. Parts are of
// one kind and one scheme, with what all rows share alike (g_idx, outlier columns,
// a global scale); but for the last they are whole blocks of scales, which are not
// nested.
PackedWeight join_rows(std::vector<PackedWeight> parts);

}  // namespace llmpress

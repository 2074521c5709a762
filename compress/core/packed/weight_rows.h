// Rows of a packed weight as a weight of their own.
#pragma once

#include <cstddef>

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

}  // namespace llmpress

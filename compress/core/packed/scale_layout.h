// Where the scales of a packed weight lie, for whoever changes them while the
// codes stay:
//
//   W[o, i] = s[o / rows_each, column_group[i]] * C[o, i]
//
// with C what the codes say. Some columns may have no scale: weights that are
// kept as they are (outlier columns of an Int8Weight).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/packed_weight.h"

namespace llmpress {

struct ScaleLayout {
  static constexpr std::uint32_t kNone =
      std::numeric_limits<std::uint32_t>::max();

  std::size_t rows = 0, columns = 0;          // of s
  std::size_t rows_each = 1;                  // of W that share a row of s
  std::vector<std::uint32_t> column_group{};  // [in]; kNone: without a scale

  std::size_t size() const { return rows * columns; }
};

// Why the scales of `weight` cannot change by small steps, or empty: they are
// none, powers of two, or codes of 8 bits themselves.
std::string_view fixed_scales(const PackedWeight& weight);

// Throws Error(kUnsupported) where fixed_scales() has a reason.
ScaleLayout scale_layout(const PackedWeight& weight);
// As they are stored, [rows, columns].
std::vector<float> learnable_scales(const PackedWeight& weight);
// Rounded to the type that they are stored in, to no 0 and no infinity.
void set_scales(PackedWeight& weight, std::span<const float> scales);

// Real zero points, [rows, columns] like the scales and of their type; empty
// where the weight has none, or whole ones.
std::vector<float> learnable_zeros(const PackedWeight& weight);
void set_zeros(PackedWeight& weight, std::span<const float> zeros);

}  // namespace llmpress

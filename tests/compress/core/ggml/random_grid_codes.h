// Random codes of a block, such as its type can hold: points of a grid and
// signs that are stored, where it has them.
#pragma once

#include <bit>
#include <cstdint>

#include "compress/core/ggml/ggml_block.h"
#include "compress/core/ggml/ggml_grid.h"
#include "compress/core/rng.h"

namespace llmpress::testing {

inline void set_grid_codes(GgmlType type, Rng& rng, GgmlBlock& block) {
  const GgmlGrid& grid = *grid_of(type);
  const bool shifted = type == GgmlType::kIq1S || type == GgmlType::kIq1M;
  const bool even = type == GgmlType::kIq2Xxs || type == GgmlType::kIq2Xs ||
                    type == GgmlType::kIq3Xxs;
  unsigned upper = 0;
  for (std::size_t i = 0; i < kGgmlMostElements; ++i) {
    const std::size_t of_upper = type == GgmlType::kIq1S ? 32 : 8;
    if (i % of_upper == 0) {
      upper = static_cast<unsigned>(rng.below(256));
      if (shifted) upper = upper % 2 * ~0u;
      if (even) upper ^= static_cast<unsigned>(std::popcount(upper) & 1);
    }
    if (i % grid.group == 0) {
      const auto point = grid.point(rng.below(grid.entries));
      for (std::size_t k = 0; k < grid.group; ++k) {
        block.codes[i + k] = point[k];
      }
    }
    if ((upper >> i % 8 & 1u) != 0) {
      block.codes[i] = static_cast<std::uint8_t>(block.codes[i] + grid.levels);
    }
  }
}

inline void set_random_codes(GgmlType type, Rng& rng, GgmlBlock& block) {
  if (grid_of(type) != nullptr) return set_grid_codes(type, rng, block);
  for (std::size_t i = 0; i < facts(type).elements; ++i) {
    block.codes[i] = static_cast<std::uint8_t>(
        rng.below(static_cast<std::uint64_t>(layout(type).levels)));
  }
}

}  // namespace llmpress::testing

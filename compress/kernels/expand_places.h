// Which number of a stream goes into which lane, for 8 lanes under a mask.
#pragma once

#include <array>
#include <cstdint>

namespace llmpress {

// expand_places[mask][i]: how many bits of `mask` are below bit i, with the sign
// bit where bit i is set.
alignas(32) inline constexpr auto expand_places = [] {
  std::array<std::array<std::uint32_t, 8>, 256> table{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::uint32_t below = 0;
    for (unsigned i = 0; i < 8; ++i) {
      const std::uint32_t bit = (mask >> i) & 1;
      table[mask][i] = below | bit << 31;
      below += bit;
    }
  }
  return table;
}();

}  // namespace llmpress

// The codebooks of the types of GGUF that name several weights at once: entry e
// of a grid has the levels of `group` neighbours, each below `levels`.
//
//            entries  group  levels  values of the levels
//   iq2_xxs      256      8       3  8 25 43
//   iq2_xs       512      8       3  8 25 43
//   iq2_s       1024      8       3  8 25 43
//   iq3_xxs      256      4       8  4 12 20 28 36 44 52 62
//   iq3_s        512      4       8  1 3 5 7 9 11 13 15
//   iq1_s/m     2048      8       3  -1 0 1
//
// Of all but the last the values are magnitudes and signs lie beside them. The
// entries rise as numbers to the base `levels`, the first neighbour lowest.
// (ggml-common.h: iq2xxs_grid and its siblings.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compress/core/ggml/ggml_type.h"

namespace llmpress {

struct GgmlGrid {
  std::size_t entries = 0, group = 0;
  std::uint8_t levels = 0;
  std::vector<std::uint8_t> points{};  // [entries, group]
  std::vector<std::uint16_t> keys{};   // [entries], rising

  std::span<const std::uint8_t> point(std::size_t entry) const {
    return std::span(points).subspan(entry * group, group);
  }
  // The entry of `point` [group], if it is one.
  std::optional<std::size_t> find(std::span<const std::uint8_t> point) const;
};

// nullptr for a type that has no grid.
const GgmlGrid* grid_of(GgmlType type);

}  // namespace llmpress

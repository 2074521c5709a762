// Rows of calibration sequences that lie on several ranks, brought together.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/ranks.h"
#include "compress/model/block.h"

namespace llmpress {

// Rows that follow one another, and who has them.
struct RankRows {
  std::size_t rank = 0, rows = 0;
};

// The stream, and what travels beside it, of all `parts` in their order, on
// every rank; `own` has those of this rank one after another (none: nothing).
// Collective.
BlockState join_rows(BlockState own, std::span<const RankRows> parts,
                     const Ranks& ranks);

}  // namespace llmpress

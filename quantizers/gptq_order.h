// In which order GPTQ solves the columns of a weight, and which group each
// belongs to.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantizers/quantize_config.h"

namespace llmpress {

struct GptqOrder {
  std::vector<std::uint32_t> column{};  // [in]: of W, at each position
  std::vector<std::uint32_t> group{};   // [in]: at each position
  // [in]: how many positions from here the grid of group[p] is fitted to when p
  // is reached; 0: no fit here. All 0 when the grids are fixed beforehand.
  std::vector<std::uint32_t> fit_count{};
  // Columns of a lazy batch. A group starts a batch or lies within one, so that
  // its grid is fitted to fully updated weights, unless config.stale_grid.
  std::size_t block_size = 128;
  bool fixed_grids = false;
  bool stale_grids = false;
  bool permuted = false;
  std::vector<std::uint32_t> g_idx{};  // [in], only if groups are not in place
};

// `diagonal` [in] of the Hessian.
GptqOrder make_gptq_order(std::span<const float> diagonal,
                          const WeightScheme& scheme, const GptqConfig& config);

}  // namespace llmpress

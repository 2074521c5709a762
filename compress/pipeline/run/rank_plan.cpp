#include "compress/pipeline/run/rank_plan.h"

#include <algorithm>
#include <numeric>

#include "compress/pipeline/run/block_rounding.h"

namespace llmpress {

std::optional<std::string> reason_for_one_rank(const StagePlan& plan,
                                               const Architecture& arch) {
  if (wants_block_rounding(plan, arch)) {
    return "its Linears learn block by block";
  }
  return std::nullopt;
}

std::vector<std::size_t> deal_out(std::span<const double> costs,
                                  std::size_t ranks) {
  std::vector<std::size_t> order(costs.size()), rank(costs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(ranks);
  for (const std::size_t item : order) {
    const auto least = std::ranges::min_element(load);
    *least += costs[item];
    rank[item] = static_cast<std::size_t>(least - load.begin());
  }
  return rank;
}

}  // namespace llmpress

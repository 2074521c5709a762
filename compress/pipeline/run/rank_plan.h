// Which rank does what of a variant.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"

namespace llmpress {

// Why the first rank compresses a variant alone while the others wait; none
// where the work is spread.
std::optional<std::string> reason_for_one_rank(const StagePlan& plan,
                                               const Architecture& arch);

// The rank of each item: the dearest first, each to the rank with the least
// work so far (the lowest of equals), items of equal cost in order.
std::vector<std::size_t> deal_out(std::span<const double> costs,
                                  std::size_t ranks);

}  // namespace llmpress

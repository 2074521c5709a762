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

// What it takes to solve the Linears that read one input. Float operations.
struct LinearWork {
  double solve = 0;
  std::size_t pieces = 1;  // of its rows, that ranks can solve apart
};
struct SolveWork {
  double in = 0;
  // Of the second moment, by whoever solves Linears that read it; ranks that
  // solve together share it.
  double inverse = 0;
  std::size_t groups = 1;             // moments, each with as many Linears
  std::vector<LinearWork> linears{};  // of one group
};

// The work of stage `s` of block `layer` under the plan.
SolveWork solve_work(const StagePlan& plan, const Architecture& arch,
                     std::size_t layer, std::size_t s);

// Whether the ranks solve each Linear together, each its rows, or each Linear
// is solved by one of them: whichever has the last of them ready earlier.
bool solved_together(const SolveWork& work, std::size_t ranks);
// Operations of the rank with the most, that way.
double slowest_share(const SolveWork& work, std::size_t ranks);
// Bytes that each Linear solved together makes ranks send, all of them to one
// other: factor and inverse as triangles of float32, a code for each weight.
double joint_bytes(const SolveWork& work);

}  // namespace llmpress

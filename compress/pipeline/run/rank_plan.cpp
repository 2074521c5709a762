#include "compress/pipeline/run/rank_plan.h"

#include <algorithm>
#include <numeric>

#include "compress/core/checked.h"
#include "compress/core/linalg.h"
#include "compress/pipeline/run/block_rounding.h"
#include "compress/pipeline/run/linear_compressor.h"

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

SolveWork solve_work(const StagePlan& plan, const Architecture& arch,
                     std::size_t layer, std::size_t s) {
  const BlockSpec& spec = arch.block(layer);
  const StageSpec& stage = spec.stages[s];
  SolveWork work{.in = static_cast<double>(stage.in), .groups = stage.groups};
  StatsNeeds needs;
  for (const std::size_t l : stage.linears) {
    const LinearTreatment wanted = treatment_of(plan, arch, layer, l);
    needs = needs | needs_of(wanted);
    const LinearSpec& linear = spec.linears[l];
    if (!needs_of(wanted).second_moment || linear.group != 0) continue;
    const auto in = static_cast<double>(linear.in);
    work.linears.push_back({.solve = static_cast<double>(linear.out) * in * in,
                            .pieces = shares_rows(wanted)
                                          ? ceil_div(linear.out, kRowsOfTail)
                                          : 1});
  }
  const double in = work.in;
  if (needs.second_moment) work.inverse += 2.0 / 3 * in * in * in;
  if (needs.reference_moment) work.inverse += 4 * in * in * in;
  return work;
}

namespace {

// Groups are dealt out whole where there are several, else Linears.
double dealt_share(const SolveWork& work, std::size_t ranks) {
  std::vector<double> costs;
  for (const LinearWork& linear : work.linears) costs.push_back(linear.solve);
  if (work.groups > 1) {
    const double group = std::accumulate(costs.begin(), costs.end(), 0.0);
    return static_cast<double>(ceil_div(work.groups, ranks)) *
           (work.inverse + group);
  }
  const std::vector<std::size_t> rank = deal_out(costs, ranks);
  std::vector<double> load(ranks);
  for (std::size_t i = 0; i < costs.size(); ++i) load[rank[i]] += costs[i];
  return work.inverse + std::ranges::max(load);
}

double joint_share(const SolveWork& work, std::size_t ranks) {
  double share = work.inverse / static_cast<double>(ranks);
  for (const auto& [solve, pieces] : work.linears) {
    share += solve * static_cast<double>(ceil_div(pieces, ranks)) /
             static_cast<double>(pieces);
  }
  return share;
}

}  // namespace

bool solved_together(const SolveWork& work, std::size_t ranks) {
  constexpr double kWorthSending = 0.9;
  return ranks > 1 && work.groups == 1 && !work.linears.empty() &&
         joint_share(work, ranks) < kWorthSending * dealt_share(work, ranks);
}

double slowest_share(const SolveWork& work, std::size_t ranks) {
  return solved_together(work, ranks) ? joint_share(work, ranks)
                                      : dealt_share(work, ranks);
}

double joint_bytes(const SolveWork& work) {
  double bytes = 4 * work.in * work.in;
  for (const auto& [solve, pieces] : work.linears) {
    if (pieces > 1) bytes += solve / work.in;
  }
  return bytes;
}

}  // namespace llmpress

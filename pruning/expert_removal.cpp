#include "pruning/expert_removal.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kTokensPerTask = 64;

// `count` experts of [begin, end) that are in the mixture, those with the
// lowest error without them first; of equal ones the first.
std::vector<std::size_t> lowest(const std::vector<double>& without,
                                const std::vector<bool>& stays,
                                std::size_t begin, std::size_t end,
                                std::size_t count) {
  std::vector<std::size_t> experts;
  for (std::size_t e = begin; e < end; ++e) {
    if (stays[e]) experts.push_back(e);
  }
  std::ranges::stable_sort(experts, {},
                           [&](std::size_t e) { return without[e]; });
  experts.resize(count);
  return experts;
}

}  // namespace

MixtureError::MixtureError(const MixtureOutputs& outputs, ThreadPool& pool)
    : outputs_(outputs),
      pool_(pool),
      g_all_(outputs.route(std::vector<bool>(outputs.experts, true))),
      energy_all_(energy(g_all_)) {}

double MixtureError::of(const std::vector<bool>& stays) const {
  MatrixF change = outputs_.route(stays);
  for (std::size_t i = 0; i < change.size(); ++i) {
    change.data()[i] -= g_all_.data()[i];
  }
  const double error = energy(change);
  if (!std::isfinite(error) || !std::isfinite(energy_all_)) {
    fail(ErrorCode::kNumeric,
         "the error of a mixture of experts is not a finite number");
  }
  return energy_all_ == 0 ? 0 : error / energy_all_;
}

double MixtureError::energy(const MatrixF& weights) const {
  std::vector<double> of_token(weights.rows());
  pool_.for_ranges(
      weights.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
        std::vector<std::size_t> used;
        for (std::size_t t = begin; t < end; ++t) {
          const auto w = weights.row(t);
          used.clear();
          for (std::size_t e = 0; e < w.size(); ++e) {
            if (w[e] != 0) used.push_back(e);
          }
          const auto products = outputs_.products.row(t);
          double sum = 0;
          for (const std::size_t a : used) {
            for (const std::size_t b : used) {
              sum += static_cast<double>(w[a]) * static_cast<double>(w[b]) *
                     static_cast<double>(products[a * w.size() + b]);
            }
          }
          // Rounding can make a difference of products negative.
          of_token[t] = std::max(sum, 0.0);
        }
      });
  return std::accumulate(of_token.begin(), of_token.end(), 0.0);
}

std::vector<RemovedUnit> remove_by_output_error(const MixtureOutputs& outputs,
                                                std::size_t kept,
                                                std::size_t groups,
                                                ThreadPool& pool) {
  const std::size_t experts = outputs.experts;
  assert(experts % groups == 0 && kept % groups == 0);
  const std::size_t of_group = experts / groups;
  std::size_t left = (experts - kept) / groups;  // to go, of each group
  const std::size_t at_once = ceil_div(left, kRemovalRounds);
  const MixtureError error(outputs, pool);
  std::vector<bool> stays(experts, true);
  std::vector<RemovedUnit> removed;
  double now = 0;
  while (left != 0) {
    std::vector<double> without(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      if (!stays[e]) continue;
      stays[e] = false;
      without[e] = error.of(stays);
      stays[e] = true;
    }
    const std::size_t count = std::min(at_once, left);
    std::vector<std::size_t> gone;
    for (std::size_t g = 0; g < groups; ++g) {
      for (const std::size_t e :
           lowest(without, stays, g * of_group, (g + 1) * of_group, count)) {
        gone.push_back(e);
        removed.push_back({.unit = e, .rise = without[e] - now});
      }
    }
    for (const std::size_t e : gone) stays[e] = false;
    left -= count;
    now = gone.size() == 1 ? without[gone[0]] : error.of(stays);
  }
  return removed;
}

}  // namespace llmpress

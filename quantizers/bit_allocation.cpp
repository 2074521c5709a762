#include "quantizers/bit_allocation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "quantizers/scaling_solver.h"

namespace llmpress {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Options = std::vector<BitOption>;

// Indices of the options that no other beats, bytes ascending, loss descending.
std::vector<std::size_t> efficient_options(const Options& options,
                                           std::size_t layer) {
  if (options.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "mixed precision: layer {} has no options", layer);
  }
  std::vector<std::size_t> order(options.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    if (options[a].bytes != options[b].bytes) {
      return options[a].bytes < options[b].bytes;
    }
    return options[a].loss < options[b].loss;
  });
  std::vector<std::size_t> kept;
  double least = kInfinity;
  for (const std::size_t k : order) {
    if (std::isnan(options[k].loss)) {
      fail(ErrorCode::kInvalidArgument,
           "mixed precision: a loss of layer {} is NaN", layer);
    }
    // The smallest stays even if its loss is infinite: it may have to be taken.
    if (!kept.empty() && !(options[k].loss < least)) continue;
    kept.push_back(k);
    least = options[k].loss;
  }
  return kept;
}

class Allocator {
 public:
  Allocator(std::span<const Options> layers, std::size_t budget)
      : layers_(layers) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      kept_.push_back(efficient_options(layers[l], l));
      least_ += option(l, 0).bytes;
      most_ += option(l, kept_[l].size() - 1).bytes;
    }
    budget_ = std::min(budget, most_);
  }

  std::optional<BitAllocation> run() {
    if (least_ > budget_) return std::nullopt;
    std::vector<std::size_t> choice = solve_by_states();
    improve(choice);
    BitAllocation result;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      result.choice.push_back(kept_[l][choice[l]]);
      result.bytes += option(l, choice[l]).bytes;
      result.loss += option(l, choice[l]).loss;
    }
    return result;
  }

 private:
  const BitOption& option(std::size_t layer, std::size_t k) const {
    return layers_[layer][kept_[layer][k]];
  }
  // Beyond the smallest option of the layer.
  std::size_t extra(std::size_t layer, std::size_t k) const {
    return option(layer, k).bytes - option(layer, 0).bytes;
  }
  // Large but finite, so that sums stay ordered.
  double loss(std::size_t layer, std::size_t k) const {
    return std::clamp(option(layer, k).loss, -1e300, 1e300);
  }

  std::size_t unit_bytes() const {
    std::size_t unit = 0;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      for (std::size_t k = 0; k < kept_[l].size(); ++k) {
        unit = std::gcd(unit, extra(l, k));
      }
    }
    const std::size_t spread = budget_ - least_;
    return std::max(
        {unit, std::size_t{1}, ceil_div(spread, kAllocationStates)});
  }

  // least[b] after layer l: the least loss with at most b units beyond the
  // smallest options; taken[l][b] the option that reaches it.
  std::vector<std::size_t> solve_by_states() const {
    const std::size_t unit = unit_bytes();
    const std::size_t states = (budget_ - least_) / unit + 1;
    std::vector<double> least(states, 0.0), next(states);
    std::vector<std::vector<std::uint16_t>> taken;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      std::ranges::fill(next, kInfinity);
      std::vector<std::uint16_t> option_at(states);
      for (std::size_t k = 0; k < kept_[l].size(); ++k) {
        const std::size_t units = ceil_div(extra(l, k), unit);
        for (std::size_t b = units; b < states; ++b) {
          const double sum = least[b - units] + loss(l, k);
          if (!(sum < next[b])) continue;
          next[b] = sum;
          option_at[b] = static_cast<std::uint16_t>(k);
        }
      }
      least.swap(next);
      taken.push_back(std::move(option_at));
    }
    std::vector<std::size_t> choice(layers_.size());
    std::size_t b = states - 1;
    for (std::size_t l = layers_.size(); l-- > 0;) {
      choice[l] = taken[l][b];
      b -= ceil_div(extra(l, choice[l]), unit);
    }
    return choice;
  }

  struct Change {
    std::size_t layer = 0, option = 0;
  };

  // The change of one layer that saves most within `room` bytes, in which a
  // change to fewer bytes makes room. `but`: a layer that is not to be touched.
  std::optional<Change> best_change(const std::vector<std::size_t>& choice,
                                    std::size_t room, double at_least,
                                    std::size_t but) const {
    std::optional<Change> best;
    for (std::size_t l = 0; l < choice.size(); ++l) {
      const std::size_t reach = extra(l, choice[l]) + room;
      for (std::size_t k = choice[l] + 1; l != but && k < kept_[l].size();
           ++k) {
        if (extra(l, k) > reach) break;
        const double gain = loss(l, choice[l]) - loss(l, k);
        if (!(gain > at_least)) continue;
        at_least = gain;
        best = {l, k};
      }
    }
    return best;
  }

  // Gives the best other layer more bytes, from the rest of the budget and from
  // what layer `giver` frees by option k (nobody if it is the number of
  // layers), if the loss falls by more than `relevant`.
  bool exchange(std::size_t giver, std::size_t k, double relevant,
                std::size_t& used, std::vector<std::size_t>& choice) const {
    std::size_t freed = 0;
    double price = relevant;
    if (giver < choice.size()) {
      freed = extra(giver, choice[giver]) - extra(giver, k);
      price += loss(giver, k) - loss(giver, choice[giver]);
    }
    const auto change =
        best_change(choice, budget_ - used + freed, price, giver);
    if (!change) return false;
    if (giver < choice.size()) choice[giver] = k;
    used += extra(change->layer, change->option) -
            extra(change->layer, choice[change->layer]);
    used -= freed;
    choice[change->layer] = change->option;
    return true;
  }

  // Local search from what coarse units gave. Each step lowers the loss by a
  // relevant amount, so it ends.
  void improve(std::vector<std::size_t>& choice) const {
    std::size_t used = least_;
    double total = 0;
    for (std::size_t l = 0; l < choice.size(); ++l) {
      used += extra(l, choice[l]);
      total += std::abs(loss(l, choice[l]));
    }
    const double relevant = 1e-9 * total;
    for (bool improved = true; improved;) {
      improved = exchange(choice.size(), 0, relevant, used, choice);
      for (std::size_t l = 0; l < choice.size(); ++l) {
        for (std::size_t k = 0; k < choice[l]; ++k) {
          if (exchange(l, k, relevant, used, choice)) improved = true;
        }
      }
    }
  }

  std::span<const Options> layers_;
  std::vector<std::vector<std::size_t>> kept_;
  std::size_t least_ = 0, most_ = 0, budget_ = 0;
};

}  // namespace

std::optional<BitAllocation> allocate_bits(
    std::span<const std::vector<BitOption>> layers, std::size_t budget_bytes) {
  return Allocator(layers, budget_bytes).run();
}

QuantizerMethod auto_method() {
  return {.name = "auto",
          .summary =
              "chooses the bits of each Linear under `target_bits` or "
              "`target_bytes`, then rounds with `solver`",
          .paper = "a multiple-choice knapsack",
          .role = MethodRole::kChoosesPrecision,
          .needs = solver_needs,
          .quantize = run_solver};
}

}  // namespace llmpress

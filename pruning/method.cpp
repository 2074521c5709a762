#include "pruning/method.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "pruning/magnitude.h"
#include "pruning/mask.h"
#include "pruning/sparsegpt.h"
#include "pruning/wanda.h"

namespace llmpress {
namespace {

constexpr std::array<WeightPruner, 3> kPruners = {{
    {PruneMethod::kMagnitude, [](const PruneConfig&) { return StatsNeeds{}; },
     prune_magnitude},
    {PruneMethod::kWanda,
     [](const PruneConfig&) { return StatsNeeds{.channel_moments = true}; },
     prune_wanda},
    {PruneMethod::kSparseGpt,
     [](const PruneConfig&) { return StatsNeeds{.second_moment = true}; },
     [](const PruneRequest& request) { return prune_sparsegpt(request); }},
}};

void check_weights(const PruneRequest& request) {
  const auto& W = request.W;
  request.pool->for_ranges(
      W.rows(), 16, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          const auto row = W.row(o);
          const auto bad = std::ranges::find_if_not(
              row, [](float w) { return std::isfinite(w); });
          if (bad == row.end()) continue;
          fail(ErrorCode::kInvalidInput,
               "{}: weight [{}, {}] is {:g}, wanted a finite number",
               request.name, o, bad - row.begin(), *bad);
        }
      });
}

[[noreturn]] void reject(const PruneRequest& request, const std::string& what) {
  fail(ErrorCode::kInvalidArgument, "{}: {}", request.name, what);
}

void check_stats(const PruneRequest& request, const StatsNeeds& needs) {
  const std::size_t in = request.W.cols();
  const InputStats none{};
  const InputStats& stats = request.stats != nullptr ? *request.stats : none;
  if (needs.channel_moments && stats.square_mean.size() != in) {
    reject(request, formatted("channel moments of {} inputs, wanted {}",
                              stats.square_mean.size(), in));
  }
  const MatrixF& S = stats.second_moment;
  if (needs.second_moment && (S.rows() != in || S.cols() != in)) {
    reject(request, formatted("second moment [{}, {}], wanted [{}, {}]",
                              S.rows(), S.cols(), in, in));
  }
  for (const float square : stats.square_mean) {
    if (!(square >= 0 && std::isfinite(square))) {
      fail(ErrorCode::kNumeric,
           "{}: mean square of an input is {:g}, wanted a finite number",
           request.name, square);
    }
  }
}

}  // namespace

std::span<const WeightPruner> weight_pruners() { return kPruners; }

const WeightPruner* find_weight_pruner(PruneMethod method) {
  const auto it = std::ranges::find(kPruners, method, &WeightPruner::method);
  return it == kPruners.end() ? nullptr : &*it;
}

PruneResult prune_weight(const PruneRequest& request) {
  assert(request.config != nullptr && request.pool != nullptr);
  check(*request.config);
  const WeightPruner* pruner = find_weight_pruner(request.config->method);
  if (pruner == nullptr) reject(request, "not a method for single weights");
  if (!(request.sparsity >= 0 && request.sparsity < 1)) {
    reject(request, formatted("sparsity {}, wanted a number in [0, 1)",
                              request.sparsity));
  }
  check_stats(request, pruner->needs(*request.config));
  check_weights(request);
  return pruner->prune(request);
}

PruneResult apply_mask(const PruneRequest& request, Matrix<std::uint8_t> mask) {
  PruneResult result;
  result.W = MatrixF(request.W);
  result.sparsity = sparsity_of(mask.view());
  for (std::size_t k = 0; k < mask.size(); ++k) {
    if (mask.data()[k] == 0) result.W.data()[k] = 0;
  }
  result.output_error = pruned_output_error(request.W, result.W.view(),
                                            request.stats, *request.pool);
  result.mask = std::move(mask);
  return result;
}

}  // namespace llmpress

#include "quantizers/smoothquant.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "quantizers/activation_range.h"
#include "quantizers/rtn.h"
#include "quantizers/scaling_solver.h"

namespace llmpress {
namespace {

constexpr double kSmallest = 1e-5;  // the clamp of the authors' code

// sum over consumers of |r(X / s) Q(W s)^T - X W^T|^2 / tokens.
double smoothed_error(const Consumers& consumers, const InputStats& stats,
                      std::span<const float> s, const QuantizeConfig& config,
                      ThreadPool& pool) {
  MatrixF X = unscale_columns(stats.sample_rows.view(), s);
  ActivationQuant input = config.input;
  if (input.range == ActivationQuant::Range::kStatic) {
    input.range = ActivationQuant::Range::kTensor;  // close enough to choose by
  }
  round_activations_in_place(X.view(), input);
  double total = 0;
  for (const ConstMatrixView& W : consumers) {
    const MatrixF scaled = scale_columns(W, s);
    const MatrixF Q = dequantize(round_to_nearest(scaled.view(), config, pool));
    MatrixF Y(X.rows(), W.rows());
    matmul_transposed(X.view(), Q.view(), Y.view(), pool);
    matmul_transposed(stats.sample_rows.view(), W, Y.view(), pool, -1.0f,
                      Accumulate::kAdd);
    for (const float y : Y.data()) {
      total += static_cast<double>(y) * static_cast<double>(y);
    }
  }
  return total / static_cast<double>(X.rows());
}

}  // namespace

std::vector<float> weight_abs_max(std::span<const ConstMatrixView> consumers) {
  if (consumers.empty()) return {};
  std::vector<float> largest(consumers.front().cols());
  for (const ConstMatrixView& W : consumers) {
    for (std::size_t o = 0; o < W.rows(); ++o) {
      for (std::size_t i = 0; i < largest.size(); ++i) {
        largest[i] = std::max(largest[i], std::abs(W(o, i)));
      }
    }
  }
  return largest;
}

std::vector<float> smooth_scales(std::span<const float> x_abs_max,
                                 std::span<const float> w_abs_max,
                                 double alpha) {
  std::vector<float> scales(x_abs_max.size(), 1.0f);
  for (std::size_t i = 0; i < scales.size(); ++i) {
    if (!(x_abs_max[i] > 0 && w_abs_max[i] > 0)) continue;
    const double s =
        std::pow(static_cast<double>(x_abs_max[i]), alpha) /
        std::pow(std::max(static_cast<double>(w_abs_max[i]), kSmallest),
                 1 - alpha);
    scales[i] = static_cast<float>(std::max(s, kSmallest));
  }
  return scales;
}

SmoothScales find_smooth_scales(const Consumers& consumers,
                                const InputStats& stats,
                                const QuantizeConfig& config,
                                ThreadPool& pool) {
  const SmoothQuantConfig& smooth = config.smoothquant;
  if (!(smooth.alpha >= 0 && smooth.alpha <= 1)) {
    throw Error(ErrorCode::kInvalidArgument,
                "smoothquant: alpha must be from 0 to 1");
  }
  check_consumers(consumers, stats.abs_max, "smoothquant: max |x|");
  const std::vector<float> w_max = weight_abs_max(consumers);
  if (!smooth.search_alpha) {
    return {.s = smooth_scales(stats.abs_max, w_max, smooth.alpha),
            .alpha = smooth.alpha};
  }
  if (stats.sample_rows.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "smoothquant: the search needs sample rows of the input");
  }
  SmoothScales best{.s = std::vector<float>(stats.abs_max.size(), 1.0f)};
  best.identity_error = smoothed_error(consumers, stats, best.s, config, pool);
  best.error = best.identity_error;
  for (int k = 0; k <= 20; ++k) {
    const double alpha = k / 20.0;
    std::vector<float> s = smooth_scales(stats.abs_max, w_max, alpha);
    const double error = smoothed_error(consumers, stats, s, config, pool);
    if (!(error < best.error)) continue;
    best.error = error;
    best.alpha = alpha;
    best.s = std::move(s);
  }
  return best;
}

namespace {

StatsNeeds needs_of(const QuantizeConfig& config) {
  return solver_needs(config) |
         StatsNeeds{.channel_moments = true,
                    .sample_rows = config.smoothquant.search_alpha};
}

FoundScales find_scales(const ScaleRequest& request) {
  SmoothScales found = find_smooth_scales(request.consumers, request.stats,
                                          request.config, request.pool);
  return {.s = std::move(found.s),
          .identity_error = found.identity_error,
          .error = found.error};
}

constexpr auto kSmoothQuant = &QuantizeConfig::smoothquant;
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"search_alpha", "find alpha for each layer",
     bool_at<kSmoothQuant, &SmoothQuantConfig::search_alpha>()},
    {"alpha", "how much moves from activations to weights",
     number_at<kSmoothQuant, &SmoothQuantConfig::alpha>(0, 1),
     [](const QuantizeConfig& config) {
       return !config.smoothquant.search_alpha;
     },
     "is searched: 'search_alpha' is true"},
};

}  // namespace

QuantizerMethod smoothquant_method() {
  return {.name = "smoothquant",
          .summary =
              "moves activation outliers into the weights, then rounds with "
              "`solver`",
          .paper = "arXiv:2211.10438",
          .role = MethodRole::kMovesScales,
          .needs = needs_of,
          .quantize = run_solver,
          .settings = kSettings,
          .scheme = "W8A8",
          .find_scales = find_scales,
          .scale_needs = [](const QuantizeConfig&) {
            return StatsNeeds{.channel_moments = true, .sample_rows = true};
          }};
}

}  // namespace llmpress

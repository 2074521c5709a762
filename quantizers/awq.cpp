#include "quantizers/awq.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/gptq.h"
#include "quantizers/int_grid.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"
#include "quantizers/scaling_solver.h"

namespace llmpress {
namespace {

constexpr double kSmallest = 1e-4;
// That means of |x| are taken of.
constexpr std::size_t kMeanTokens = 4096;

// Mean over all rows of |w| / max|group|. [in]
std::vector<double> weight_means(const Consumers& consumers,
                                 std::size_t group_size) {
  const std::size_t in = consumers.front().cols();
  std::vector<double> mean(in);
  std::size_t rows = 0;
  for (const ConstMatrixView& W : consumers) {
    rows += W.rows();
    for (std::size_t o = 0; o < W.rows(); ++o) {
      for (std::size_t first = 0; first < in; first += group_size) {
        const std::size_t n = std::min(group_size, in - first);
        const auto group = W.row(o).subspan(first, n);
        float largest = 0;
        for (const float w : group) largest = std::max(largest, std::abs(w));
        for (std::size_t i = 0; i < n; ++i) {
          mean[first + i] +=
              static_cast<double>(std::abs(group[i]) / (largest + 1e-6f));
        }
      }
    }
  }
  for (double& m : mean) m /= static_cast<double>(rows);
  return mean;
}

// `w_mean` empty: without the weight term.
std::vector<float> scales_at(double ratio, std::span<const float> x_mean,
                             std::span<const double> w_mean) {
  std::vector<double> s(x_mean.size());
  double lo = std::numeric_limits<double>::infinity(), hi = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    s[i] = std::pow(static_cast<double>(x_mean[i]), ratio);
    if (!w_mean.empty()) s[i] /= std::pow(w_mean[i], 1 - ratio) + kSmallest;
    s[i] = std::max(s[i], kSmallest);
    lo = std::min(lo, s[i]);
    hi = std::max(hi, s[i]);
  }
  const double middle = std::sqrt(lo * hi);
  std::vector<float> scales;
  for (const double value : s) {
    const auto scale = static_cast<float>(value / middle);
    scales.push_back(std::isfinite(scale) && scale > 0 ? scale : 1.0f);
  }
  return scales;
}

// Whether rounding works by groups of a row alone, so that a row can be scaled,
// rounded and unscaled while it is in cache.
bool rounds_by_rows(const QuantizeConfig& config, std::size_t in) {
  return config.weights.type == WeightType::kInt &&
         config.weights.group_size != 0 && !wants_int8(config, in);
}

// What W diag(s) is rounded to, times diag(1/s), into `result` [out, in].
void round_rows(ConstMatrixView W, std::span<const float> s,
                const WeightScheme& scheme, MatrixView<float> result,
                ThreadPool& pool) {
  const std::size_t in = W.cols();
  const std::size_t group = resolved_group_size(scheme, in);
  pool.for_ranges(W.rows(), 16, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> codes(group);
    for (std::size_t o = begin; o < end; ++o) {
      const std::span<const float> w = W.row(o);
      const std::span<float> row = result.row(o);
      for (std::size_t i = 0; i < in; ++i) row[i] = w[i] * s[i];
      for (std::size_t first = 0; first < in; first += group) {
        const std::size_t count = std::min(group, in - first);
        const std::span<float> part = row.subspan(first, count);
        const IntGrid grid = fit_int_grid(part, scheme);
        encode_int(part, grid, scheme.bits, std::span(codes).first(count));
        for (std::size_t i = 0; i < count; ++i) {
          const int steps = int{codes[i]} - int{grid.zero};
          part[i] = grid.scale * static_cast<float>(steps);
        }
      }
      for (std::size_t i = 0; i < in; ++i) row[i] /= s[i];
    }
  });
}

// The consumers as each candidate rounds them; one set of matrices for all.
class TrialWeights {
 public:
  TrialWeights(const Consumers& consumers, const QuantizeConfig& config,
               ThreadPool& pool)
      : consumers_(consumers), config_(config), pool_(pool) {
    weights_.resize(consumers.size());
  }

  const std::vector<MatrixF>& operator()(std::span<const float> s) {
    for (std::size_t k = 0; k < consumers_.size(); ++k) {
      const ConstMatrixView W = consumers_[k];
      if (rounds_by_rows(config_, W.cols())) {
        if (weights_[k].empty()) weights_[k] = MatrixF(W.rows(), W.cols());
        round_rows(W, s, config_.weights, weights_[k].view(), pool_);
        continue;
      }
      const MatrixF scaled = scale_columns(W, s);
      const MatrixF Q =
          dequantize(round_to_nearest(scaled.view(), config_, pool_));
      weights_[k] = unscale_columns(Q.view(), s);
    }
    return weights_;
  }

 private:
  const Consumers& consumers_;
  const QuantizeConfig& config_;
  ThreadPool& pool_;
  std::vector<MatrixF> weights_{};
};

struct ScaleCandidate {
  double ratio = 0;
  bool weight_term = false;
  std::vector<float> s{};
};

// Ratio 0 without the weight term is the identity, which is no candidate.
std::vector<ScaleCandidate> scale_candidates(const Consumers& consumers,
                                             std::span<const float> x_mean,
                                             const QuantizeConfig& config) {
  std::vector<ScaleCandidate> all;
  const auto ratio_at = [&](std::size_t k) {
    return static_cast<double>(k) / static_cast<double>(config.awq.ratios);
  };
  for (std::size_t k = 1; k < config.awq.ratios; ++k) {
    all.push_back({ratio_at(k), false, scales_at(ratio_at(k), x_mean, {})});
  }
  if (!config.awq.weight_term) return all;
  const std::vector<double> w_mean = weight_means(
      consumers, resolved_group_size(config.weights, x_mean.size()));
  for (std::size_t k = 0; k < config.awq.ratios; ++k) {
    all.push_back({ratio_at(k), true, scales_at(ratio_at(k), x_mean, w_mean)});
  }
  return all;
}

// Of the output with each candidate, in turn by the ranks, all on all of them.
std::vector<double> errors_of(std::span<const ScaleCandidate> candidates,
                              const OutputObjective& objective,
                              TrialWeights& rounded, const Ranks& ranks) {
  std::vector<double> own;
  for (std::size_t k = 0; k < candidates.size(); ++k) {
    if (ranks.owns(k)) own.push_back(objective(rounded(candidates[k].s)));
  }
  std::vector<double> all(candidates.size());
  const std::vector<std::string> parts = ranks.gather(bytes_of(std::span(own)));
  for (std::size_t r = 0; r < parts.size(); ++r) {
    const auto errors = values_of<double>(parts[r]);
    for (std::size_t i = 0; i < errors.size(); ++i) {
      all[r + i * ranks.size()] = errors[i];
    }
  }
  return all;
}

constexpr std::size_t kFinalists = 5;

// The kFinalists of least error, in the order in which they were.
void keep_finalists(std::vector<ScaleCandidate>& all,
                    std::span<const double> errors) {
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Not finite counts as worst.
  std::ranges::stable_sort(order, {}, [&](std::size_t k) {
    return std::isfinite(errors[k]) ? errors[k]
                                    : std::numeric_limits<double>::infinity();
  });
  order.resize(std::min(order.size(), kFinalists));
  std::ranges::sort(order);
  std::vector<ScaleCandidate> kept;
  for (const std::size_t k : order) kept.push_back(std::move(all[k]));
  all = std::move(kept);
}

// Squared error of the outputs of one group of inputs for each row: the
// diagonal of D M D^T, M = X_g^T X_g, or |X_g D^T|^2 by row where M would be
// larger than X_g. D [out, group].
class GroupObjective {
 public:
  GroupObjective(ConstMatrixView X, std::size_t first, std::size_t count)
      : X_group_(X.rows(), count) {
    for (std::size_t t = 0; t < X.rows(); ++t) {
      const auto from = X.row(t).subspan(first, count);
      std::ranges::copy(from, X_group_.row(t).begin());
    }
    if (count >= X.rows()) return;
    gram_ = MatrixF(count, count);
    ThreadPool self(1);
    add_gram(X_group_.view(), 1.0f, gram_.view(), self);
  }

  std::vector<double> operator()(const MatrixF& D, ThreadPool& pool) const {
    const MatrixF& right = gram_.empty() ? X_group_ : gram_;
    MatrixF product(D.rows(), right.rows());
    matmul_transposed(D.view(), right.view(), product.view(), pool);
    std::vector<double> error(D.rows());
    for (std::size_t o = 0; o < D.rows(); ++o) {
      const std::span<const float> p = product.row(o);
      const std::span<const float> left = gram_.empty() ? p : D.row(o);
      for (std::size_t k = 0; k < p.size(); ++k) {
        error[o] += static_cast<double>(left[k]) * static_cast<double>(p[k]);
      }
    }
    return error;
  }

 private:
  MatrixF X_group_;  // [tokens, count]
  MatrixF gram_;     // [count, count] or empty
};

struct GroupColumns {
  std::size_t first = 0, count = 0;
};

struct ClippedGroup {
  std::vector<float> limits{};  // [out]: of |w|
  MatrixF D{};                  // [out, count]: rounded minus original
};

ClippedGroup clip_and_round(ConstMatrixView W, const GroupColumns& group,
                            const WeightScheme& scheme, double keep) {
  ClippedGroup result{.limits = std::vector<float>(W.rows()),
                      .D = MatrixF(W.rows(), group.count)};
  std::vector<std::uint8_t> codes(group.count);
  std::vector<float> cut(group.count);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    const auto w = W.row(o).subspan(group.first, group.count);
    float largest = 0;
    for (const float x : w) largest = std::max(largest, std::abs(x));
    const float limit = largest * static_cast<float>(keep);
    result.limits[o] = limit;
    for (std::size_t i = 0; i < w.size(); ++i) {
      cut[i] = std::clamp(w[i], -limit, limit);
    }
    const IntGrid grid = fit_int_grid(cut, scheme);
    encode_int(cut, grid, scheme.bits, codes);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const int steps = int{codes[i]} - int{grid.zero};
      result.D(o, i) = grid.scale * static_cast<float>(steps) - w[i];
    }
  }
  return result;
}

// Clips one group of inputs of all rows in place; returns how many rows gained.
std::size_t clip_group(ConstMatrixView W, ConstMatrixView X,
                       const GroupColumns& group, const WeightScheme& scheme,
                       const AwqConfig& awq, ThreadPool& pool,
                       MatrixView<float> clipped) {
  constexpr float kWhole = std::numeric_limits<float>::infinity();
  const GroupObjective objective(X, group.first, group.count);
  std::vector<double> best(W.rows(), std::numeric_limits<double>::infinity());
  std::vector<float> limit(W.rows(), kWhole);
  for (std::size_t step = 0; step < awq.clip_steps; ++step) {
    const double shrink = awq.clip_max_shrink * static_cast<double>(step) /
                          static_cast<double>(awq.clip_steps);
    const ClippedGroup trial = clip_and_round(W, group, scheme, 1 - shrink);
    const std::vector<double> error = objective(trial.D, pool);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      if (!(error[o] < best[o])) continue;
      best[o] = error[o];
      limit[o] = step == 0 ? kWhole : trial.limits[o];
    }
  }
  std::size_t gained = 0;
  for (std::size_t o = 0; o < W.rows(); ++o) {
    if (limit[o] == kWhole) continue;
    ++gained;
    for (float& w : clipped.row(o).subspan(group.first, group.count)) {
      w = std::clamp(w, -limit[o], limit[o]);
    }
  }
  return gained;
}

}  // namespace

AwqScales search_awq_scales(const Consumers& consumers,
                            std::span<const float> x_mean,
                            const QuantizeConfig& config,
                            const OutputObjective& evaluate, ThreadPool& pool,
                            const OutputObjective& screen, const Ranks& ranks) {
  if (consumers.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "awq: no Linear reads the input");
  }
  check_consumers(consumers, x_mean, "awq: x_mean");
  AwqScales best{.s = std::vector<float>(x_mean.size(), 1.0f)};
  TrialWeights rounded(consumers, config, pool);
  best.identity_error = evaluate(rounded(best.s));
  best.error = best.identity_error;
  std::vector<ScaleCandidate> candidates =
      scale_candidates(consumers, x_mean, config);
  if (screen && candidates.size() > kFinalists) {
    keep_finalists(candidates, errors_of(candidates, screen, rounded, ranks));
  }
  const std::vector<double> errors =
      errors_of(candidates, evaluate, rounded, ranks);
  for (std::size_t k = 0; k < candidates.size(); ++k) {
    ScaleCandidate& c = candidates[k];
    const double error = errors[k];
    const bool better = std::isfinite(error) &&
                        !(std::isfinite(best.error) && error >= best.error);
    if (!better) continue;
    best = {.s = std::move(c.s),
            .ratio = c.ratio,
            .weight_term = c.weight_term,
            .error = error,
            .identity_error = best.identity_error};
  }
  return best;
}

std::vector<float> fit_scales_to_gptq(const Consumers& consumers,
                                      const InputStats& stats,
                                      const QuantizeConfig& config,
                                      std::span<const float> s,
                                      ThreadPool& pool) {
  QuantizeConfig trial = config;
  trial.method = gptq_method().name;
  trial.gptq.asymmetric_calibration = false;
  std::vector<float> best(s.size(), 1.0f);
  double least = std::numeric_limits<double>::infinity();
  for (const float power : {0.0f, 0.5f, 1.0f}) {
    std::vector<float> scales(s.size());
    std::ranges::transform(s, scales.begin(),
                           [&](float x) { return std::pow(x, power); });
    InputStats scaled;
    scaled.tokens = stats.tokens;
    scaled.second_moment = unscale_columns(stats.second_moment.view(), scales);
    unscale_rows_in_place(scaled.second_moment.view(), scales);
    double error = 0;
    for (const ConstMatrixView W : consumers) {
      const MatrixF scaled_W = scale_columns(W, scales);
      const QuantizeResult solved = quantize_gptq({.W = scaled_W.view(),
                                                   .stats = &scaled,
                                                   .config = &trial,
                                                   .pool = &pool,
                                                   .name = "awq"});
      error += solved.output_error * static_cast<double>(W.rows());
    }
    if (!(error < least)) continue;
    least = error;
    best = std::move(scales);
  }
  return best;
}

AwqClip search_awq_clip(ConstMatrixView W, ConstMatrixView X,
                        const WeightScheme& scheme, const AwqConfig& awq,
                        ThreadPool& pool) {
  check_int_scheme(scheme);
  if (X.cols() != W.cols() || X.rows() == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "awq: clipping needs sample rows of the input");
  }
  const std::size_t group_size = resolved_group_size(scheme, W.cols());
  AwqClip result{.W = MatrixF(W),
                 .groups = W.rows() * ceil_div(W.cols(), group_size)};
  std::atomic<std::size_t> clipped = 0;
  pool.for_each(ceil_div(W.cols(), group_size), [&](std::size_t g) {
    const std::size_t first = g * group_size;
    clipped += clip_group(W, X, {first, std::min(group_size, W.cols() - first)},
                          scheme, awq, pool, result.W.view());
  });
  result.clipped_groups = clipped;
  return result;
}

bool awq_skips_clip(std::string_view linear_name) {
  constexpr std::array<std::string_view, 5> kSkipped = {"q_", "k_", "query",
                                                        "key", "Wqkv"};
  const std::size_t dot = linear_name.rfind('.');
  const std::string_view last =
      dot == std::string_view::npos ? linear_name : linear_name.substr(dot + 1);
  return std::ranges::any_of(kSkipped, [&](std::string_view word) {
    return last.find(word) != std::string_view::npos;
  });
}

QuantizeResult quantize_awq(const QuantizeRequest& request) {
  const QuantizeConfig& config = *request.config;
  const bool clip = config.awq.clip && config.solver == rtn_method().name &&
                    config.weights.type == WeightType::kInt &&
                    config.weights.group_size != 0 &&
                    !awq_skips_clip(request.name) && request.stats != nullptr &&
                    !request.stats->sample_rows.empty();
  if (!clip) return run_solver(request);
  check_weights(request.W, request.name);
  AwqClip clipped =
      search_awq_clip(request.W, request.stats->sample_rows.view(),
                      config.weights, config.awq, *request.pool);
  QuantizeResult result = finish_result(
      request, round_to_nearest(clipped.W.view(), config, *request.pool));
  if (clipped.clipped_groups > 0) {
    result.notes.push_back(formatted("clipped {} of {} groups",
                                     clipped.clipped_groups, clipped.groups));
  }
  return result;
}

namespace {

bool gptq_rounds(const QuantizeConfig& config) {
  return rounding_method(config).name == gptq_method().name;
}

StatsNeeds scale_needs(const QuantizeConfig& config) {
  return {.second_moment = gptq_rounds(config),
          .channel_moments = true,
          .sample_rows = true};
}

// Means of |x| are as good of some tokens; a second moment wants many more than it
// has rows.
std::size_t scale_tokens(const QuantizeConfig& config) {
  return gptq_rounds(config) ? 0 : kMeanTokens;
}

StatsNeeds needs_of(const QuantizeConfig& config) {
  return solver_needs(config) |
         StatsNeeds{.channel_moments = true, .sample_rows = true};
}

FoundScales find_scales(const ScaleRequest& request) {
  AwqScales found = search_awq_scales(
      request.consumers, request.stats.abs_mean, request.config,
      request.module_objective(ObjectiveTokens::kAll), request.pool,
      request.module_objective(ObjectiveTokens::kFew), request.ranks);
  if (gptq_rounds(request.config)) {
    found.s = fit_scales_to_gptq(request.consumers, request.stats,
                                 request.config, found.s, request.pool);
  }
  return {.s = std::move(found.s),
          .identity_error = found.identity_error,
          .error = found.error};
}

bool clips(const QuantizeConfig& config) { return config.awq.clip; }

constexpr auto kAwq = &QuantizeConfig::awq;
constexpr std::string_view kNeedsClip = "needs 'clip: true'";
constexpr Setting<QuantizeConfig> kSettings[] = {
    {"ratios", "exponents tried", count_at<kAwq, &AwqConfig::ratios>(1, 1000)},
    {"weight_term", "also try scales with the weight magnitude",
     bool_at<kAwq, &AwqConfig::weight_term>()},
    {"clip", "search a clipping range too", bool_at<kAwq, &AwqConfig::clip>()},
    {"clip_steps", "ranges tried",
     count_at<kAwq, &AwqConfig::clip_steps>(1, 1000), clips, kNeedsClip},
    {"clip_max_shrink", "the smallest range tried is 1 minus this",
     number_at<kAwq, &AwqConfig::clip_max_shrink>(0, 0.99), clips, kNeedsClip},
};

}  // namespace

QuantizerMethod awq_method() {
  return {.name = "awq",
          .summary =
              "scales channels by their activations, clips, then rounds with "
              "`solver`",
          .paper = "arXiv:2306.00978",
          .role = MethodRole::kMovesScales,
          .needs = needs_of,
          .quantize = quantize_awq,
          .settings = kSettings,
          .find_scales = find_scales,
          .scale_needs = scale_needs,
          .scale_tokens = scale_tokens,
          .scales_into_linears = true};
}

}  // namespace llmpress

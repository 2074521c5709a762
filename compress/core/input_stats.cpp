#include "compress/core/input_stats.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

void require_finite(ConstMatrixView X, std::size_t tokens_before,
                    ThreadPool& pool) {
  constexpr std::size_t kRows = 64;
  pool.for_ranges(X.rows(), kRows, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t) {
      const auto row = X.row(t);
      // x - x is 0 for finite x and NaN otherwise: the sum is 0 or NaN, in a
      // loop without branches.
      float zero = 0;
      for (const float x : row) zero += x - x;
      if (zero == 0) continue;
      const auto bad = std::find_if(row.begin(), row.end(),
                                    [](float x) { return !std::isfinite(x); });
      fail(ErrorCode::kNumeric,
           "input statistics: token {}, channel {} is {:g}, wanted a finite "
           "number",
           tokens_before + t, bad - row.begin(), *bad);
    }
  });
}

// (x_full - x) x^T, summed.
void add_reference_moment(ConstMatrixView X, ConstMatrixView X_full,
                          float alpha, MatrixView<float> moment,
                          ThreadPool& pool) {
  MatrixF difference(X_full);
  for (std::size_t k = 0; k < X.size(); ++k) {
    difference.data()[k] -= X.data()[k];
  }
  add_cross_gram(difference.view(), X, alpha, moment, pool);
}

// Each range of channels runs over all tokens in order.
void add_channel_moments(ConstMatrixView X, InputStats& stats,
                         std::vector<double>& abs_sum,
                         std::vector<double>& square_sum, ThreadPool& pool) {
  constexpr std::size_t kChannels = 128;
  pool.for_ranges(X.cols(), kChannels, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = 0; t < X.rows(); ++t) {
      const auto row = X.row(t);
      for (std::size_t i = begin; i < end; ++i) {
        const double x = row[i];
        abs_sum[i] += std::abs(x);
        square_sum[i] += x * x;
        stats.min[i] = std::min(stats.min[i], row[i]);
        stats.max[i] = std::max(stats.max[i], row[i]);
      }
    }
    for (std::size_t i = begin; i < end; ++i) {
      stats.abs_max[i] = std::max(stats.max[i], -stats.min[i]);
    }
  });
}

void scale(MatrixF& moment, float factor) {
  for (float& x : moment.data()) x *= factor;
}

}  // namespace

StatsNeeds operator|(const StatsNeeds& a, const StatsNeeds& b) {
  return {.second_moment = a.second_moment || b.second_moment,
          .channel_moments = a.channel_moments || b.channel_moments,
          .sample_rows = a.sample_rows || b.sample_rows,
          .reference_moment = a.reference_moment || b.reference_moment};
}

bool any(const StatsNeeds& needs) {
  return needs.second_moment || needs.channel_moments || needs.sample_rows ||
         needs.reference_moment;
}

InputStatsCollector::InputStatsCollector(std::size_t in,
                                         const StatsNeeds& needs,
                                         std::size_t total_tokens,
                                         std::size_t max_sample_rows)
    : in_(in),
      needs_(needs),
      total_tokens_(std::max<std::size_t>(total_tokens, 1)),
      sample_stride_(std::max<std::size_t>(
          ceil_div(total_tokens, std::max<std::size_t>(max_sample_rows, 1)),
          1)),
      max_sample_rows_(max_sample_rows) {
  if (needs.second_moment) stats_.second_moment = MatrixF(in, in);
  if (needs.reference_moment) stats_.reference_moment = MatrixF(in, in);
  if (needs.channel_moments) {
    stats_.abs_max.assign(in, 0.0f);
    stats_.min.assign(in, std::numeric_limits<float>::infinity());
    stats_.max.assign(in, -std::numeric_limits<float>::infinity());
    abs_sum_.assign(in, 0.0);
    square_sum_.assign(in, 0.0);
  }
}

void InputStatsCollector::add(ConstMatrixView X, ThreadPool& pool,
                              ConstMatrixView X_full) {
  assert(X.cols() == in_);
  if (X.rows() == 0 || in_ == 0) return;
  require_finite(X, stats_.tokens, pool);
  const float weight = 1.0f / static_cast<float>(total_tokens_);
  if (needs_.second_moment) {
    add_gram(X, weight, stats_.second_moment.view(), pool);
  }
  if (needs_.reference_moment) {
    assert(X_full.rows() == X.rows() && X_full.cols() == X.cols());
    require_finite(X_full, stats_.tokens, pool);
    add_reference_moment(X, X_full, weight, stats_.reference_moment.view(),
                         pool);
  }
  if (needs_.channel_moments) {
    add_channel_moments(X, stats_, abs_sum_, square_sum_, pool);
  }
  for (std::size_t t = 0; needs_.sample_rows && t < X.rows(); ++t) {
    if ((stats_.tokens + t) % sample_stride_ != 0) continue;
    if (samples_.size() / in_ == max_sample_rows_) break;
    samples_.insert(samples_.end(), X.row(t).begin(), X.row(t).end());
  }
  stats_.tokens += X.rows();
}

InputStats InputStatsCollector::finish() {
  const auto tokens =
      static_cast<double>(std::max<std::size_t>(stats_.tokens, 1));
  // More or fewer rows came than were announced.
  if (stats_.tokens != total_tokens_) {
    const auto factor =
        static_cast<float>(static_cast<double>(total_tokens_) / tokens);
    scale(stats_.second_moment, factor);
    scale(stats_.reference_moment, factor);
  }
  const auto mean = [&](const std::vector<double>& sum) {
    std::vector<float> means(sum.size());
    std::transform(sum.begin(), sum.end(), means.begin(),
                   [&](double s) { return static_cast<float>(s / tokens); });
    return means;
  };
  stats_.abs_mean = mean(abs_sum_);
  stats_.square_mean = mean(square_sum_);
  const std::size_t rows = in_ == 0 ? 0 : samples_.size() / in_;
  stats_.sample_rows = MatrixF(std::move(samples_), rows, in_);
  return std::move(stats_);
}

}  // namespace llmpress

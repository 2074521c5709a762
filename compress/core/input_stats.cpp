#include "compress/core/input_stats.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

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

// x_full - x.
MatrixF difference_of(ConstMatrixView X_full, ConstMatrixView X) {
  MatrixF difference(X_full);
  for (std::size_t k = 0; k < X.size(); ++k) {
    difference.data()[k] -= X.data()[k];
  }
  return difference;
}

// Of one batch.
struct ChannelSums {
  std::vector<double> abs, square;
  std::vector<float> min, max;
};

// Each range of channels runs over all tokens in order.
ChannelSums sum_channels(ConstMatrixView X, ThreadPool& pool) {
  constexpr std::size_t kChannels = 128;
  const std::size_t in = X.cols();
  ChannelSums sums{std::vector<double>(in), std::vector<double>(in),
                   std::vector<float>(in), std::vector<float>(in)};
  pool.for_ranges(in, kChannels, [&](std::size_t begin, std::size_t end) {
    std::copy_n(X.row(0).begin() + static_cast<std::ptrdiff_t>(begin),
                end - begin,
                sums.min.begin() + static_cast<std::ptrdiff_t>(begin));
    std::copy_n(X.row(0).begin() + static_cast<std::ptrdiff_t>(begin),
                end - begin,
                sums.max.begin() + static_cast<std::ptrdiff_t>(begin));
    for (std::size_t t = 0; t < X.rows(); ++t) {
      const auto row = X.row(t);
      for (std::size_t i = begin; i < end; ++i) {
        const double x = row[i];
        sums.abs[i] += std::abs(x);
        sums.square[i] += x * x;
        sums.min[i] = std::min(sums.min[i], row[i]);
        sums.max[i] = std::max(sums.max[i], row[i]);
      }
    }
  });
  return sums;
}

template <class T>
void add_to(std::vector<T>& total, const std::vector<T>& part) {
  for (std::size_t i = 0; i < total.size(); ++i) total[i] += part[i];
}

std::string bytes_of_sums(const ChannelSums& sums) {
  return bytes_of(std::span(sums.abs)) + bytes_of(std::span(sums.square)) +
         bytes_of(std::span(sums.min)) + bytes_of(std::span(sums.max));
}

ChannelSums sums_of_bytes(std::string_view bytes, std::size_t in) {
  const std::size_t doubles = in * sizeof(double), floats = in * sizeof(float);
  return {values_of<double>(bytes.substr(0, doubles)),
          values_of<double>(bytes.substr(doubles, doubles)),
          values_of<float>(bytes.substr(2 * doubles, floats)),
          values_of<float>(bytes.substr(2 * doubles + floats, floats))};
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
                                         std::size_t max_sample_rows,
                                         const Ranks& ranks)
    : in_(in),
      needs_(needs),
      total_tokens_(std::max<std::size_t>(total_tokens, 1)),
      sample_stride_(std::max<std::size_t>(
          ceil_div(total_tokens, std::max<std::size_t>(max_sample_rows, 1)),
          1)),
      max_sample_rows_(max_sample_rows),
      ranks_(ranks) {
  if (needs.second_moment) {
    second_moment_ = MomentSum(in, GramShape::kSymmetric, ranks);
  }
  if (needs.reference_moment) {
    reference_moment_ = MomentSum(in, GramShape::kFull, ranks);
  }
  if (needs.channel_moments) {
    stats_.min.assign(in, std::numeric_limits<float>::infinity());
    stats_.max.assign(in, -std::numeric_limits<float>::infinity());
    abs_sum_.assign(in, 0.0);
    square_sum_.assign(in, 0.0);
  }
}

void InputStatsCollector::add(ConstMatrixView X, ThreadPool& pool,
                              ConstMatrixView X_full) {
  assert(X.rows() == 0 || X.cols() == in_);
  if (in_ == 0) return;
  pool_ = &pool;
  std::vector<std::size_t> rows;
  const std::size_t own_rows = X.rows();
  for (const std::string& bytes :
       ranks_.gather(bytes_of(std::span(&own_rows, 1)))) {
    rows.push_back(values_of<std::size_t>(bytes).front());
  }
  std::size_t first = stats_.tokens;
  for (std::size_t r = 0; r < ranks_.rank(); ++r) first += rows[r];
  const std::size_t all =
      std::accumulate(rows.begin(), rows.end(), std::size_t{0});
  if (all == 0) return;
  if (X.rows() != 0) require_finite(X, first, pool);
  add_moments(X, X_full, rows, first, pool);
  if (needs_.channel_moments) add_channels(X, rows, pool);
  if (needs_.sample_rows) add_samples(X, first);
  stats_.tokens += all;
}

void InputStatsCollector::add_moments(ConstMatrixView X, ConstMatrixView X_full,
                                      std::span<const std::size_t> rows,
                                      std::size_t first, ThreadPool& pool) {
  const float weight = 1.0f / static_cast<float>(total_tokens_);
  if (needs_.second_moment) second_moment_.add(X, X, weight, rows, pool);
  if (!needs_.reference_moment) return;
  MatrixF difference;
  if (X.rows() != 0) {
    assert(X_full.rows() == X.rows() && X_full.cols() == X.cols());
    require_finite(X_full, first, pool);
    difference = difference_of(X_full, X);
  }
  reference_moment_.add(std::as_const(difference).view(), X, weight, rows,
                        pool);
}

void InputStatsCollector::add_channels(ConstMatrixView X,
                                       std::span<const std::size_t> rows,
                                       ThreadPool& pool) {
  ChannelSums own;
  if (X.rows() != 0) own = sum_channels(X, pool);
  std::vector<std::string> parts;
  if (ranks_.is_spread()) parts = ranks_.gather(bytes_of_sums(own));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (rows[r] == 0) continue;
    ChannelSums received;
    if (r != ranks_.rank()) received = sums_of_bytes(parts[r], in_);
    const ChannelSums& sums = r == ranks_.rank() ? own : received;
    add_to(abs_sum_, sums.abs);
    add_to(square_sum_, sums.square);
    for (std::size_t i = 0; i < in_; ++i) {
      stats_.min[i] = std::min(stats_.min[i], sums.min[i]);
      stats_.max[i] = std::max(stats_.max[i], sums.max[i]);
    }
  }
}

// `first`: the rows that come before X's.
void InputStatsCollector::add_samples(ConstMatrixView X, std::size_t first) {
  std::vector<float> own;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    if ((first + t) % sample_stride_ != 0) continue;
    if ((first + t) / sample_stride_ >= max_sample_rows_) break;
    own.insert(own.end(), X.row(t).begin(), X.row(t).end());
  }
  for (const std::string& bytes :
       ranks_.gather(bytes_of(std::span<const float>(own)))) {
    const auto rows = values_of<float>(bytes);
    samples_.insert(samples_.end(), rows.begin(), rows.end());
  }
}

InputStats InputStatsCollector::finish() {
  const auto tokens =
      static_cast<double>(std::max<std::size_t>(stats_.tokens, 1));
  stats_.second_moment = second_moment_.finish(pool_);
  stats_.reference_moment = reference_moment_.finish(pool_);
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
  for (std::size_t i = 0; i < stats_.min.size(); ++i) {
    stats_.abs_max.push_back(
        stats_.tokens == 0 ? 0 : std::max(stats_.max[i], -stats_.min[i]));
  }
  const std::size_t rows = in_ == 0 ? 0 : samples_.size() / in_;
  stats_.sample_rows = MatrixF(std::move(samples_), rows, in_);
  return std::move(stats_);
}

}  // namespace llmpress

// What calibration knows about the input X [tokens, in] of one Linear.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/moment_sum.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"

namespace llmpress {

// Which statistics a method wants; each costs memory or time to collect.
struct StatsNeeds {
  bool second_moment = false;  // [in, in], the dear one
  bool channel_moments = false;
  bool sample_rows = false;
  bool reference_moment = false;  // GPTAQ, needs the uncompressed inputs too
};

// The union of two sets of needs.
StatsNeeds operator|(const StatsNeeds& a, const StatsNeeds& b);
bool any(const StatsNeeds& needs);

struct InputStats {
  std::size_t tokens = 0;
  // sum over tokens of x x^T / tokens: GPTQ's H is twice this. [in, in] or
  // empty.
  MatrixF second_moment;
  // sum over tokens of (x_full - x) x^T / tokens, x_full the input in the
  // uncompressed model (GPTAQ, arXiv:2504.02692). [in, in] or empty.
  MatrixF reference_moment;
  // Per input channel [in]: max |x|, mean |x|, mean x^2, min x, max x; or
  // empty.
  std::vector<float> abs_max, abs_mean, square_mean, min, max;
  // Evenly spaced rows of X, at most the requested number. [rows, in] or empty.
  MatrixF sample_rows;
};

// Accumulates InputStats over batches of rows. Whatever is summed is summed for
// each batch alone and then in the order of the batches: the result depends on
// that order, but neither on the number of threads nor on which rank has which
// batch, as long as batch b is on rank b mod ranks.size().
class InputStatsCollector {
 public:
  // `total_tokens` rows will come in all; `max_sample_rows` of them are kept,
  // every ceil(total/max)-th.
  InputStatsCollector(std::size_t in, const StatsNeeds& needs,
                      std::size_t total_tokens,
                      std::size_t max_sample_rows = 512,
                      const Ranks& ranks = {});

  // A batch X [rows, in] of each rank, in rank order: collective; a rank whose
  // batches are used up has no rows. `X_full` of the same shape only if
  // needs.reference_moment. Throws Error(kNumeric) at the first value that is
  // not finite.
  void add(ConstMatrixView X, ThreadPool& pool, ConstMatrixView X_full = {});

  // The same on every rank: collective. On the pool of the last add().
  InputStats finish();

 private:
  void add_moments(ConstMatrixView X, ConstMatrixView X_full,
                   std::span<const std::size_t> rows, std::size_t first,
                   ThreadPool& pool);
  void add_channels(ConstMatrixView X, std::span<const std::size_t> rows,
                    ThreadPool& pool);
  void add_samples(ConstMatrixView X, std::size_t first);

  std::size_t in_;
  StatsNeeds needs_;
  std::size_t total_tokens_, sample_stride_, max_sample_rows_;
  Ranks ranks_;
  ThreadPool* pool_ = nullptr;
  InputStats stats_;
  MomentSum second_moment_{}, reference_moment_{};
  std::vector<double> abs_sum_, square_sum_;
  std::vector<float> samples_;
};

}  // namespace llmpress

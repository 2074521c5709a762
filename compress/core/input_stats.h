// What calibration knows about the input X [tokens, in] of one Linear.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

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

// Accumulates InputStats over batches of rows; the result depends on the order
// of the batches but not on the number of threads.
class InputStatsCollector {
 public:
  // `total_tokens` rows will come in all; `max_sample_rows` of them are kept,
  // every ceil(total/max)-th.
  InputStatsCollector(std::size_t in, const StatsNeeds& needs,
                      std::size_t total_tokens,
                      std::size_t max_sample_rows = 512);

  // X [rows, in]; `X_full` of the same shape only if needs.reference_moment.
  // Throws Error(kNumeric) at the first value that is not finite.
  void add(ConstMatrixView X, ThreadPool& pool, ConstMatrixView X_full = {});

  InputStats finish();

 private:
  std::size_t in_;
  StatsNeeds needs_;
  std::size_t total_tokens_, sample_stride_, max_sample_rows_;
  InputStats stats_;
  std::vector<double> abs_sum_, square_sum_;
  std::vector<float> samples_;
};

}  // namespace llmpress

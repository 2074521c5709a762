// The error that a searched range is judged by:
//   sum_i importance_i (|w'_i - w_i| / range)^norm
// Vectorized with a polynomial power good to about 1e-6; the same bits on every
// instruction set.
#pragma once

#include <span>

namespace llmpress {

struct GridErrorTerms {
  float scale = 1, zero = 0, max_code = 15;
  float inverse_range = 1;  // makes errors relative, so that powers stay normal
  float norm = 2;
};

// `importance` is empty, or divides `weights` into rows that it weights alike.
double grid_error(std::span<const float> weights,
                  std::span<const float> importance,
                  const GridErrorTerms& terms);

}  // namespace llmpress

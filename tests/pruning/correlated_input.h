// Data that pruning methods differ on: inputs that share factors and have very
// different sizes, as activations of a language model do.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "compress/core/input_stats.h"
#include "compress/core/linalg.h"
#include "compress/core/matrix.h"
#include "compress/core/rng.h"

namespace llmpress {

inline MatrixF normal_matrix(std::size_t rows, std::size_t cols,
                             std::uint64_t seed) {
  Rng rng(seed);
  MatrixF M(rows, cols);
  for (float& x : M.data()) x = static_cast<float>(rng.normal());
  return M;
}

// X [tokens, in]: each input follows its neighbour, times a size of its own.
inline MatrixF correlated_inputs(std::size_t tokens, std::size_t in,
                                 std::uint64_t seed) {
  MatrixF X = normal_matrix(tokens, in, seed);
  Rng rng(seed + 1);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 1; i < in; ++i) X(t, i) += 0.7f * X(t, i - 1);
  }
  for (std::size_t i = 0; i < in; ++i) {
    const auto size = static_cast<float>(std::exp(0.7 * rng.normal()));
    for (std::size_t t = 0; t < tokens; ++t) X(t, i) *= size;
  }
  return X;
}

inline InputStats stats_of(const MatrixF& X, ThreadPool& pool) {
  InputStatsCollector collector(
      X.cols(), {.second_moment = true, .channel_moments = true}, X.rows());
  collector.add(X.view(), pool);
  return collector.finish();
}

inline InputStats correlated_stats(std::size_t in, std::uint64_t seed,
                                   ThreadPool& pool) {
  return stats_of(correlated_inputs(4 * in + 16, in, seed), pool);
}

}  // namespace llmpress

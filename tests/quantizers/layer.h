// A Linear with correlated inputs to try methods on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/rng.h"
#include "quantizers/method.h"

namespace llmpress::testing_support {

struct Layer {
  MatrixF W{};  // [out, in]
  MatrixF X{};  // [tokens, in]
  InputStats stats{};
};

inline MatrixF random_matrix(std::size_t rows, std::size_t cols,
                             std::uint64_t seed) {
  Rng rng(seed);
  MatrixF m(rows, cols);
  for (float& x : m.data()) x = static_cast<float>(rng.normal());
  return m;
}

// Statistics of X by their definitions, in double.
inline InputStats stats_of(const MatrixF& X) {
  const std::size_t n = X.rows(), in = X.cols();
  InputStats s;
  s.tokens = n;
  s.second_moment = MatrixF(in, in);
  s.sample_rows = X;
  for (auto* moment :
       {&s.abs_max, &s.abs_mean, &s.square_mean, &s.min, &s.max}) {
    moment->assign(in, 0.0f);
  }
  for (std::size_t i = 0; i < in; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t t = 0; t < n; ++t) {
        sum += static_cast<double>(X(t, i)) * static_cast<double>(X(t, j));
      }
      const auto mean = static_cast<float>(sum / static_cast<double>(n));
      s.second_moment(i, j) = s.second_moment(j, i) = mean;
    }
    double abs_sum = 0;
    for (std::size_t t = 0; t < n; ++t) {
      const float x = X(t, i);
      s.abs_max[i] = std::max(s.abs_max[i], std::abs(x));
      s.min[i] = std::min(s.min[i], x);
      s.max[i] = std::max(s.max[i], x);
      abs_sum += static_cast<double>(std::abs(x));
    }
    s.abs_mean[i] = static_cast<float>(abs_sum / static_cast<double>(n));
    s.square_mean[i] = s.second_moment(i, i);
  }
  return s;
}

// X = Z A with channels of very different size: what activations look like.
inline Layer correlated_layer(std::size_t out, std::size_t in,
                              std::uint64_t seed) {
  const std::size_t tokens = 2 * in + 8;
  const MatrixF Z = random_matrix(tokens, in, seed);
  MatrixF X(tokens, in);
  for (std::size_t t = 0; t < tokens; ++t) {
    float memory = 0;  // an AR(1) process along the channels
    for (std::size_t i = 0; i < in; ++i) {
      memory = 0.9f * memory + Z(t, i);
      X(t, i) = memory * (i % 7 == 3 ? 4.0f : 0.5f);
    }
  }
  InputStats stats = stats_of(X);
  return {random_matrix(out, in, seed + 1), std::move(X), std::move(stats)};
}

// With scales in float32.
inline QuantizeConfig gptq_config(int bits, std::int64_t group_size) {
  QuantizeConfig config{.method = "gptq"};
  config.weights.bits = bits;
  config.weights.group_size = group_size;
  config.weights.scale_dtype = DType::kF32;
  return config;
}

inline QuantizeResult run_method(const Layer& layer,
                                 const QuantizeConfig& config,
                                 ThreadPool& pool) {
  return find_quantizer_method(config.method)
      .quantize({.W = layer.W.view(),
                 .stats = &layer.stats,
                 .config = &config,
                 .pool = &pool,
                 .name = "layer"});
}

}  // namespace llmpress::testing_support

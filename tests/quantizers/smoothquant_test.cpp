#include "quantizers/smoothquant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "quantizers/activation_range.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::random_matrix;
using testing_support::stats_of;

QuantizeConfig w8a8() {
  QuantizeConfig config{.method = "smoothquant"};
  config.weights = {.bits = 8, .group_size = -1, .symmetric = true};
  config.input = {.kind = ActivationQuant::Kind::kInt};
  return config;
}

TEST(SmoothQuant, MatchesTheFormulaByHand) {
  // s = 16^.5 / 4^.5 = 2; alpha 1: max|x|; alpha 0: 1 / max|w|.
  const std::vector<float> x = {16, 0, 9}, w = {4, 4, 0};
  EXPECT_EQ(smooth_scales(x, w, 0.5), (std::vector<float>{2, 1, 1}));
  EXPECT_EQ(smooth_scales(x, w, 1.0)[0], 16.0f);
  EXPECT_EQ(smooth_scales(x, w, 0.0)[0], 0.25f);
}

TEST(SmoothQuant, TakesTheLargestWeightOfAllConsumers) {
  const MatrixF a({1, -5}, 1, 2), b({-3, 2, 0, 4}, 2, 2);
  const std::vector<ConstMatrixView> both = {a.view(), b.view()};
  EXPECT_EQ(weight_abs_max(both), (std::vector<float>{3, 5}));
}

TEST(SmoothQuant, HalvesBothDifficulties) {
  // With alpha 1/2 the ranges of X / s and W s agree channel by channel.
  const Layer layer = correlated_layer(16, 32, 2);
  const Consumers consumers = {layer.W.view()};
  ThreadPool pool(1);
  const SmoothScales found =
      find_smooth_scales(consumers, layer.stats, w8a8(), pool);
  const std::vector<float> w_max = weight_abs_max(consumers);
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(layer.stats.abs_max[i] / found.s[i], w_max[i] * found.s[i],
                1e-4f * w_max[i] * found.s[i]);
  }
}

TEST(SmoothQuant, TheSearchBeatsNoSmoothingOnOutliers) {
  Layer layer = correlated_layer(16, 64, 3);
  for (std::size_t t = 0; t < layer.X.rows(); ++t) layer.X(t, 9) *= 60;
  layer.stats = stats_of(layer.X);
  const Consumers consumers = {layer.W.view()};
  ThreadPool pool(2);
  QuantizeConfig config = w8a8();
  config.smoothquant.search_alpha = true;
  const SmoothScales found =
      find_smooth_scales(consumers, layer.stats, config, pool);
  EXPECT_LT(found.error, 0.5 * found.identity_error);
  EXPECT_GT(found.s[9], 4 * found.s[11]);
}

TEST(SmoothQuant, RefusesMissingStatistics) {
  Layer layer = correlated_layer(4, 8, 3);
  const Consumers consumers = {layer.W.view()};
  ThreadPool pool(1);
  QuantizeConfig config = w8a8();
  config.smoothquant.search_alpha = true;
  layer.stats.sample_rows = {};
  EXPECT_THROW(find_smooth_scales(consumers, layer.stats, config, pool), Error);
  layer.stats.abs_max = {};
  config.smoothquant.search_alpha = false;
  EXPECT_THROW(find_smooth_scales(consumers, layer.stats, config, pool), Error);
  config.smoothquant.alpha = 1.5;
  EXPECT_THROW(find_smooth_scales(consumers, layer.stats, config, pool), Error);
}

}  // namespace
}  // namespace llmpress

#include "quantizers/awq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "quantizers/rtn.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::random_matrix;
using testing_support::run_method;
using testing_support::stats_of;

QuantizeConfig awq_config(int bits, std::int64_t group_size) {
  QuantizeConfig config{.method = "awq"};
  config.weights.bits = bits;
  config.weights.group_size = group_size;
  return config;
}

// A few channels carry most of the input.
Layer salient_layer(std::uint64_t seed) {
  Layer layer = correlated_layer(48, 64, seed);
  for (std::size_t t = 0; t < layer.X.rows(); ++t) {
    layer.X(t, 5) *= 30;
    layer.X(t, 40) *= 30;
  }
  layer.stats = stats_of(layer.X);
  return layer;
}

TEST(Awq, ProtectsTheChannelsThatMatter) {
  ThreadPool pool(2);
  const Layer layer = salient_layer(3);
  const Consumers consumers = {layer.W.view()};
  const AwqScales found = search_awq_scales(
      consumers, layer.stats.abs_mean, awq_config(3, 32),
      sample_objective(consumers, layer.X.view(), pool), pool);
  EXPECT_LT(found.error, 0.5 * found.identity_error);
  EXPECT_GT(found.s[5], 2 * found.s[6]);
  EXPECT_GT(found.s[40], 2 * found.s[41]);
}

TEST(Awq, ErrorIsThatOfTheScaledAndFoldedModel) {
  ThreadPool pool(1);
  const Layer layer = salient_layer(4);
  const Consumers consumers = {layer.W.view()};
  QuantizeConfig config = awq_config(4, 16);
  const AwqScales found = search_awq_scales(
      consumers, layer.stats.abs_mean, config,
      moment_objective(consumers, layer.stats.second_moment.view(), pool),
      pool);
  // Fold: W diag(s), X / s; then round what is left.
  Layer folded = layer;
  folded.W = scale_columns(layer.W.view(), found.s);
  folded.X = unscale_columns(layer.X.view(), found.s);
  folded.stats = stats_of(folded.X);
  config.awq.clip = false;
  const double error = run_method(folded, config, pool).output_error;
  const auto out = static_cast<double>(layer.W.rows());
  EXPECT_NEAR(error * out, found.error, 1e-3 * found.error);
}

TEST(Awq, IdentityIsKeptWhereNothingBeatsIt) {
  ThreadPool pool(1);
  const Layer layer = salient_layer(5);
  const Consumers consumers = {layer.W.view()};
  std::size_t calls = 0;
  // The first evaluation, the identity's, is the best.
  const AwqScales found = search_awq_scales(
      consumers, layer.stats.abs_mean, awq_config(4, 32),
      [&](const std::vector<MatrixF>&) { return static_cast<double>(++calls); },
      pool);
  EXPECT_EQ(found.s, std::vector<float>(64, 1.0f));
  EXPECT_EQ(found.error, 1.0);
  EXPECT_EQ(calls, 40u);  // identity, 19 ratios, 20 with the weight term
}

// With all tokens to screen on, what is found is what trying all finds; with any
// tokens, only five are tried further, and the best of these wins.
TEST(Awq, ScreensCandidatesOnFewerTokens) {
  ThreadPool pool(2);
  const Layer layer = salient_layer(8);
  const Consumers consumers = {layer.W.view()};
  const QuantizeConfig config = awq_config(3, 32);
  const OutputObjective all = sample_objective(consumers, layer.X.view(), pool);
  std::size_t calls = 0;
  const OutputObjective counted = [&](const std::vector<MatrixF>& candidate) {
    ++calls;
    return all(candidate);
  };
  const AwqScales tried =
      search_awq_scales(consumers, layer.stats.abs_mean, config, all, pool);
  const AwqScales screened = search_awq_scales(consumers, layer.stats.abs_mean,
                                               config, counted, pool, all);
  EXPECT_EQ(screened.s, tried.s);
  EXPECT_EQ(screened.error, tried.error);
  EXPECT_EQ(calls, 6u);  // identity and five
  const OutputObjective few = sample_objective(
      consumers, layer.X.view().rows_slice(0, layer.X.rows() / 4), pool);
  EXPECT_LT(
      search_awq_scales(consumers, layer.stats.abs_mean, config, all, pool, few)
          .error,
      0.5 * tried.identity_error);
}

// Rows rounded in cache are what the method rounds to.
TEST(Awq, TrialsAreTheWeightsThatRoundingGives) {
  ThreadPool pool(2);
  const Layer layer = salient_layer(9);
  const Consumers consumers = {layer.W.view()};
  const QuantizeConfig config = awq_config(4, 24);  // 24 does not divide 64
  std::vector<MatrixF> first;
  search_awq_scales(
      consumers, layer.stats.abs_mean, config,
      [&](const std::vector<MatrixF>& candidate) {
        if (first.empty()) first = candidate;  // the identity
        return 1.0;
      },
      pool);
  const MatrixF wanted =
      dequantize(round_to_nearest(layer.W.view(), config, pool));
  EXPECT_TRUE(std::ranges::equal(first[0].data(), wanted.data()));
}

TEST(Awq, SurvivesObjectivesAndChannelsThatAreNotFinite) {
  ThreadPool pool(1);
  Layer layer = salient_layer(6);
  layer.stats.abs_mean[7] = 0;  // a dead channel
  for (std::size_t o = 0; o < layer.W.rows(); ++o) layer.W(o, 9) = 0;
  const Consumers consumers = {layer.W.view()};
  std::size_t calls = 0;
  const AwqScales found = search_awq_scales(
      consumers, layer.stats.abs_mean, awq_config(4, 32),
      [&](const std::vector<MatrixF>& candidate) {
        for (const float w : candidate[0].data()) {
          EXPECT_TRUE(std::isfinite(w));
        }
        return ++calls % 2 == 1 ? std::nan("")
                                : 100.0 / static_cast<double>(calls);
      },
      pool);
  EXPECT_EQ(found.error, 2.5);
  for (const float s : found.s) EXPECT_TRUE(std::isfinite(s) && s > 0);
}

TEST(Awq, SharesOneSetOfScalesAmongConsumers) {
  ThreadPool pool(1);
  const Layer layer = salient_layer(7);
  const MatrixF other = random_matrix(20, 64, 99);
  const Consumers consumers = {layer.W.view(), other.view()};
  const AwqScales found = search_awq_scales(
      consumers, layer.stats.abs_mean, awq_config(3, 32),
      sample_objective(consumers, layer.X.view(), pool), pool);
  EXPECT_LT(found.error, found.identity_error);
  const MatrixF wrong = random_matrix(2, 63, 1);
  EXPECT_THROW(search_awq_scales(
                   {wrong.view()}, layer.stats.abs_mean, awq_config(4, 8),
                   sample_objective(consumers, layer.X.view(), pool), pool),
               Error);
}

TEST(Awq, ClippingLowersTheErrorItMeasures) {
  ThreadPool pool(2);
  Layer layer = correlated_layer(24, 96, 8);
  // Heavy tails, so that clipping pays.
  for (float& w : layer.W.data()) w = w * w * w;
  for (const std::int64_t group_size : {32, 40, -1}) {
    QuantizeConfig config = awq_config(3, group_size);
    const AwqClip clip = search_awq_clip(layer.W.view(), layer.X.view(),
                                         config.weights, config.awq, pool);
    EXPECT_GT(clip.clipped_groups, 0u);
    for (std::size_t k = 0; k < layer.W.size(); ++k) {
      EXPECT_LE(std::abs(clip.W.data()[k]), std::abs(layer.W.data()[k]));
    }
    const QuantizeResult with = run_method(layer, config, pool);
    EXPECT_EQ(with.notes.size(), 1u);
    config.awq.clip = false;
    const QuantizeResult without = run_method(layer, config, pool);
    EXPECT_LT(with.output_error, without.output_error) << group_size;
  }
}

TEST(Awq, LeavesQueriesAndKeysUnclipped) {
  EXPECT_TRUE(awq_skips_clip("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(awq_skips_clip("model.layers.0.self_attn.k_proj"));
  EXPECT_TRUE(awq_skips_clip("h.0.attn.Wqkv"));
  EXPECT_FALSE(awq_skips_clip("model.layers.0.self_attn.v_proj"));
  EXPECT_FALSE(awq_skips_clip("monkey_model.layers.0.mlp.down_proj"));
}

TEST(Awq, TheSolverAfterItCanBeGptq) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(24, 96, 8);
  QuantizeConfig config = awq_config(3, 32);
  const double rtn = run_method(layer, config, pool).output_error;
  config.solver = "gptq";
  EXPECT_TRUE(awq_method().needs(config).second_moment);
  const double gptq = run_method(layer, config, pool).output_error;
  EXPECT_LT(gptq, rtn);
  config.solver = "hqq";
  EXPECT_THROW(run_method(layer, config, pool), Error);
}

// Scales that GPTQ gains nothing from are weakened or left out.
TEST(Awq, ScalesNeverMakeGptqWorseByItsOwnError) {
  ThreadPool pool(2);
  const auto gptq_error = [&](const Layer& layer, std::span<const float> s) {
    Layer scaled = layer;
    scaled.W = scale_columns(layer.W.view(), s);
    scaled.stats = stats_of(unscale_columns(layer.X.view(), s));
    QuantizeConfig config = awq_config(3, 32);
    config.method = "gptq";
    return run_method(scaled, config, pool).output_error;
  };
  QuantizeConfig config = awq_config(3, 32);
  config.solver = "gptq";
  for (const std::uint64_t seed : {11u, 12u, 13u}) {
    const Layer layer = salient_layer(seed);
    const Consumers consumers = {layer.W.view()};
    Rng rng(seed);
    std::vector<float> wild(64);
    for (float& x : wild) x = std::exp(3 * static_cast<float>(rng.normal()));
    for (const std::vector<float>& s : {wild, std::vector<float>(64, 1.0f)}) {
      const std::vector<float> fitted =
          fit_scales_to_gptq(consumers, layer.stats, config, s, pool);
      const double identity = gptq_error(layer, std::vector<float>(64, 1.0f));
      // The second moment is rounded to float32 once more on the way.
      EXPECT_LE(gptq_error(layer, fitted), identity * (1 + 1e-3));
      EXPECT_LE(gptq_error(layer, fitted), gptq_error(layer, s) * (1 + 1e-3));
    }
  }
}

TEST(ScaledConsumers, FoldingKeepsTheFunction) {
  // Producer P [64, 10] with bias feeds W; rows of P / s, columns of W * s.
  const MatrixF P = random_matrix(64, 10, 1), W = random_matrix(5, 64, 2);
  std::vector<float> s(64);
  for (std::size_t i = 0; i < 64; ++i) s[i] = 0.5f + static_cast<float>(i % 9);
  MatrixF folded = P;
  unscale_rows_in_place(folded.view(), s);
  const MatrixF scaled = scale_columns(W.view(), s);
  for (std::size_t o = 0; o < 5; ++o) {
    for (std::size_t c = 0; c < 10; ++c) {
      double before = 0, after = 0;
      for (std::size_t i = 0; i < 64; ++i) {
        before += static_cast<double>(W(o, i) * P(i, c));
        after += static_cast<double>(scaled(o, i) * folded(i, c));
      }
      EXPECT_NEAR(before, after, 1e-4);
    }
  }
  // Only the last rows of a fused producer.
  MatrixF fused = P;
  unscale_rows_in_place(fused.view(), std::span(s).first(4));
  EXPECT_EQ(fused(59, 0), P(59, 0));
  EXPECT_EQ(fused(61, 0), P(61, 0) / s[1]);
}

}  // namespace
}  // namespace llmpress

// Methods that learn in blocks, on a Linear by itself.
#include "quantizers/block_weight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "quantizers/method.h"
#include "quantizers/rtn.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::random_matrix;
using testing_support::run_method;

QuantizeConfig config_of(std::string_view method, int bits, bool symmetric) {
  QuantizeConfig config{.method = std::string(method)};
  config.weights = {.bits = bits, .group_size = 32, .symmetric = symmetric};
  return config;
}

std::vector<std::string> block_methods() {
  std::vector<std::string> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.block_wise()) names.emplace_back(method.name);
  }
  return names;
}

std::unique_ptr<BlockWeight> weight_of(const MatrixF& W,
                                       const QuantizeConfig& config,
                                       ThreadPool& pool) {
  return method_of(config).learn_in_block(
      {.W = W.view(), .config = &config, .pool = &pool});
}

MatrixF rounded(const BlockWeight& weight, std::size_t out, std::size_t in) {
  ThreadPool pool(2);
  MatrixF W_q(out, in);
  weight.round_into(W_q.view(), pool);
  return W_q;
}

TEST(BlockWeight, ThereAreThreeMethods) {
  EXPECT_EQ(block_methods(), (std::vector<std::string>{
                                 "autoround", "efficientqat", "omniquant"}));
}

TEST(BlockWeight, LearnsSomeOfTheErrorOfOneLinearAway) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(24, 96, 3);
  for (const std::string& method : block_methods()) {
    for (const bool symmetric : {false, true}) {
      for (const int bits : {2, 3}) {
        const double nearest =
            run_method(layer, config_of("rtn", bits, symmetric), pool)
                .output_error;
        EXPECT_LT(run_method(layer, config_of(method, bits, symmetric), pool)
                      .output_error,
                  0.97 * nearest)
            << method << ' ' << bits << ' ' << symmetric;
      }
    }
  }
}

TEST(BlockWeight, PacksWhatItRoundsToAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  const MatrixF W = random_matrix(19, 96, 4);
  for (const std::string& method : block_methods()) {
    for (const bool symmetric : {false, true}) {
      const QuantizeConfig config = config_of(method, 3, symmetric);
      const auto a = weight_of(W, config, one), b = weight_of(W, config, three);
      for (std::size_t i = 0; i < 4; ++i) {
        MatrixF D = random_matrix(19, 96, 10 + i), same = D;
        a->step(D.view(), i, one);
        b->step(same.view(), i, three);
      }
      const GroupedIntWeight packed = a->pack(one);
      EXPECT_NO_THROW(check(packed, method));
      EXPECT_TRUE(std::ranges::equal(dequantize(packed).data(),
                                     rounded(*a, 19, 96).data()))
          << method << symmetric;
      const GroupedIntWeight other = b->pack(three);
      EXPECT_EQ(packed.codes, other.codes) << method;
      EXPECT_EQ(packed.scales, other.scales) << method;
    }
  }
}

TEST(BlockWeight, NeedsCalibrationAndIntegers) {
  ThreadPool pool(1);
  for (const std::string& method : block_methods()) {
    Layer layer = correlated_layer(4, 32, 3);
    QuantizeConfig config = config_of(method, 4, false);
    layer.stats.second_moment = {};
    EXPECT_THROW(run_method(layer, config, pool), Error) << method;
    layer = correlated_layer(4, 32, 3);
    config.weights.type = WeightType::kNf4;
    EXPECT_THROW(run_method(layer, config, pool), Error) << method;
  }
}

// With nothing to learn by it rounds to nearest.
TEST(EfficientQat, BeginsAsRoundingToNearest) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(8, 64, 5);
  const QuantizeConfig config = config_of("efficientqat", 3, false);
  EXPECT_TRUE(std::ranges::equal(
      rounded(*weight_of(W, config, pool), 8, 64).data(),
      dequantize(round_to_nearest(W.view(), config, pool)).data()));
}

// AdamW's first step is the learning rate, against the sign: a mean grid step
// (s = 1, range [-1, 2]) times 0.3 takes 0.4 to 0.1, beyond the middle of no
// code, and 0.6 to 0.3, into the code below.
TEST(EfficientQat, MovesWeightsByGridSteps) {
  ThreadPool pool(1);
  const MatrixF W({0.4f, -1, 2, 0.6f}, 1, 4);
  QuantizeConfig config = config_of("efficientqat", 2, false);
  config.weights.group_size = 4;
  config.efficientqat.learning_rate = 0.3;
  config.efficientqat.scale_learning_rate = 0;
  const auto weight = weight_of(W, config, pool);
  const auto before = rounded(*weight, 1, 4);
  EXPECT_EQ(before.data()[0], 0);
  EXPECT_EQ(before.data()[3], 1);
  MatrixF D({1, 0, 0, 1}, 1, 4);
  weight->step(D.view(), 0, pool);
  EXPECT_EQ(rounded(*weight, 1, 4).data()[0], 0);
  EXPECT_EQ(rounded(*weight, 1, 4).data()[3], 0);
}

// Range [-1, 2] times sigmoid(4) = 0.98201: s = 0.98201, z = 1, so that -1 and 2
// are clamped and 0.4 is inside.
TEST(OmniQuant, DifferentiatesAGroupByHand) {
  ThreadPool pool(1);
  const MatrixF W({0.4f, -1, 2, 0.9f}, 1, 4);
  QuantizeConfig config = config_of("omniquant", 2, false);
  config.weights.group_size = 4;
  config.weights.scale_dtype = DType::kF32;
  const auto weight = weight_of(W, config, pool);
  const float a = 1 / (1 + std::exp(-4.0f));
  const MatrixF W_q = rounded(*weight, 1, 4);
  EXPECT_NEAR(W_q.data()[0], 0, 1e-6);
  EXPECT_NEAR(W_q.data()[1], -a, 1e-6);
  EXPECT_NEAR(W_q.data()[2], 2 * a, 1e-6);
  EXPECT_NEAR(W_q.data()[3], a, 1e-6);
  MatrixF D({1, 10, 100, 1000}, 1, 4);
  weight->step(D.view(), 0, pool);
  // end = lo / s = -1; dL/ds = 1 (0 - 0.4 / a) + 10 (-1 + 1) + 100 (2 + 1)
  //                            + 1000 (1 - 0.9 / a)
  const float ds = -0.4f / a + 300 + 1000 * (1 - 0.9f / a);
  const float of_hi = ds / 3, of_lo = 110 - of_hi;
  EXPECT_NEAR(D.data()[0], 1, 1e-4);
  EXPECT_NEAR(D.data()[1], of_lo * a, 1e-2);
  EXPECT_NEAR(D.data()[2], of_hi * a, 1e-2);
  EXPECT_NEAR(D.data()[3], 1000, 1e-3);
}

}  // namespace
}  // namespace llmpress

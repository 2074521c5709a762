#include "quantizers/autoround.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "compress/core/error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::run_method;

QuantizeConfig config_of(std::string_view method, int bits, bool symmetric) {
  QuantizeConfig config{.method = std::string(method)};
  config.weights = {.bits = bits, .group_size = 32, .symmetric = symmetric};
  return config;
}

TEST(Autoround, LearnsSomeOfTheErrorOfOneLinearAway) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(24, 96, 3);
  for (const bool symmetric : {false, true}) {
    for (const int bits : {2, 3, 4}) {
      const double nearest =
          run_method(layer, config_of("rtn", bits, symmetric), pool)
              .output_error;
      const double learned =
          run_method(layer, config_of("autoround", bits, symmetric), pool)
              .output_error;
      EXPECT_LT(learned, nearest) << bits << ' ' << symmetric;
    }
  }
}

// One step of the largest rate leads anywhere; the start is kept then.
TEST(Autoround, IsNeverWorseThanItsStart) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(16, 64, 7);
  QuantizeConfig wild = config_of("autoround", 4, false);
  wild.signed_rounding = {.iterations = 1, .learning_rate = 1};
  EXPECT_LE(run_method(layer, wild, pool).output_error,
            run_method(layer, config_of("rtn", 4, false), pool).output_error);
}

TEST(Autoround, LearnedRangesHelpAtTwoBits) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(24, 96, 3);
  QuantizeConfig fixed = config_of("autoround", 2, false);
  fixed.signed_rounding.learn_clipping = false;
  EXPECT_LT(
      run_method(layer, config_of("autoround", 2, false), pool).output_error,
      run_method(layer, fixed, pool).output_error);
}

TEST(Autoround, NeedsCalibrationAndIntegers) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(4, 32, 3);
  QuantizeConfig config = config_of("autoround", 4, false);
  layer.stats.second_moment = {};
  EXPECT_THROW(run_method(layer, config, pool), Error);
  layer = correlated_layer(4, 32, 3);
  config.weights.type = WeightType::kNf4;
  EXPECT_THROW(run_method(layer, config, pool), Error);
}

}  // namespace
}  // namespace llmpress

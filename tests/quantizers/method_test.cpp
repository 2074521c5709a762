#include "quantizers/method.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "compress/core/error.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::run_method;
using testing_support::stats_of;

// A configuration that the method accepts.
QuantizeConfig config_for(const QuantizerMethod& method) {
  QuantizeConfig config{.method = std::string(method.name)};
  config.weights.group_size = 32;
  if (method.name == "nf4") config.weights.type = WeightType::kNf4;
  if (method.name == "llm_int8" || method.name == "smoothquant") {
    config.weights.bits = 8;
    config.weights.group_size = -1;
    config.weights.symmetric = true;
    config.input.kind = ActivationQuant::Kind::kInt;
  }
  return config;
}

TEST(Methods, HaveDistinctNamesAndSummaries) {
  std::set<std::string_view> names;
  for (const QuantizerMethod& method : quantizer_methods()) {
    EXPECT_TRUE(names.insert(method.name).second) << method.name;
    EXPECT_FALSE(method.summary.empty());
    EXPECT_FALSE(method.paper.empty());
    EXPECT_EQ(&find_quantizer_method(method.name), &method);
  }
}

TEST(Methods, AnUnknownNameIsAnswered_WithTheKnownOnes) {
  try {
    find_quantizer_method("gtpq");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("rtn, gptq"), std::string::npos);
  }
}

TEST(Methods, QuantizeRaggedShapesToCheckedWeights) {
  ThreadPool pool(2);
  for (const QuantizerMethod& method : quantizer_methods()) {
    for (const auto& [out, in] : {std::pair<std::size_t, std::size_t>{1, 1},
                                  {1, 37},
                                  {17, 1},
                                  {13, 101}}) {
      const Layer layer = correlated_layer(out, in, 3);
      const QuantizeResult result = run_method(layer, config_for(method), pool);
      check(result.weight, method.name);
      EXPECT_EQ(rows_of(result.weight), out);
      EXPECT_EQ(cols_of(result.weight), in);
      const double direct =
          output_error(layer.W.view(), dequantize(result.weight).view(),
                       layer.stats.second_moment.view(), pool);
      EXPECT_NEAR(result.output_error, direct, 1e-2 * direct + 1e-12)
          << method.name;
    }
  }
}

TEST(Methods, GiveTheSameBytesAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  const Layer layer = correlated_layer(70, 100, 3);
  for (const QuantizerMethod& method : quantizer_methods()) {
    const QuantizeConfig config = config_for(method);
    const QuantizeResult a = run_method(layer, config, one);
    const QuantizeResult b = run_method(layer, config, three);
    const MatrixF A = dequantize(a.weight), B = dequantize(b.weight);
    EXPECT_TRUE(std::ranges::equal(A.data(), B.data())) << method.name;
    EXPECT_EQ(a.output_error, b.output_error) << method.name;
  }
}

TEST(Methods, DegenerateWeightsGiveFiniteValues) {
  ThreadPool pool(1);
  for (const QuantizerMethod& method : quantizer_methods()) {
    for (const float value : {0.0f, 1.0f, -2.0f, 1e-44f, 1e-20f, 1e30f}) {
      Layer layer = correlated_layer(3, 40, 9);
      for (float& w : layer.W.data()) w = value;
      QuantizeResult result;
      try {
        result = run_method(layer, config_for(method), pool);
      } catch (const Error& e) {
        // Outlier columns are kept in f16, which does not hold it.
        EXPECT_EQ(std::string(method.name), "llm_int8") << e.what();
        EXPECT_EQ(e.code(), ErrorCode::kNumeric);
        EXPECT_EQ(value, 1e30f);
        continue;
      }
      check(result.weight, method.name);
      const MatrixF W = dequantize(result.weight);
      for (const float w : W.data()) {
        EXPECT_TRUE(std::isfinite(w)) << method.name << ' ' << value;
        EXPECT_TRUE(value != 0.0f || w == 0.0f) << method.name;
      }
    }
  }
}

TEST(Methods, ADeadInputIsSurvived) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(6, 40, 9);
  for (std::size_t t = 0; t < layer.X.rows(); ++t) layer.X(t, 7) = 0;
  layer.stats = stats_of(layer.X);
  for (const QuantizerMethod& method : quantizer_methods()) {
    check(run_method(layer, config_for(method), pool).weight, method.name);
  }
}

TEST(Methods, RejectWeightsThatAreNotNumbers) {
  ThreadPool pool(1);
  for (const QuantizerMethod& method : quantizer_methods()) {
    for (const float bad : {std::nanf(""), INFINITY, 3e38f}) {
      Layer layer = correlated_layer(3, 40, 9);
      layer.W(1, 4) = bad;
      try {
        run_method(layer, config_for(method), pool);
        ADD_FAILURE() << method.name << " took " << bad;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kInvalidInput) << error.what();
      }
    }
  }
}

TEST(Methods, OutputErrorByHand) {
  // D = (1, 2), S = [[2, 1], [1, 3]]: 2 + 2*2 + 12 = 18; identity: 5.
  ThreadPool pool(1);
  const MatrixF W({0, 0}, 1, 2), Q({1, 2}, 1, 2), S({2, 1, 1, 3}, 2, 2);
  EXPECT_DOUBLE_EQ(output_error(W.view(), Q.view(), S.view(), pool), 18);
  EXPECT_DOUBLE_EQ(output_error(W.view(), Q.view(), {}, pool), 5);
}

}  // namespace
}  // namespace llmpress

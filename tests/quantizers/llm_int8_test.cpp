#include "quantizers/llm_int8.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "tests/quantizers/golden_input.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::golden_input;
using testing_support::Layer;
using testing_support::random_matrix;
using testing_support::run_method;

TEST(LlmInt8, WritesTheGoldenRow) {
  ThreadPool pool(1);
  const MatrixF W(golden_input(8), 1, 8);
  const Int8Weight q = quantize_int8(W.view(),
                                     {.bits = 8,
                                      .group_size = -1,
                                      .symmetric = true,
                                      .scale_dtype = DType::kF32},
                                     {}, pool);
  EXPECT_FLOAT_EQ(q.scales[0], 1.40625f / 127);
  EXPECT_EQ(q.codes,
            (std::vector<std::int8_t>{-110, -6, 99, -82, 23, 127, -54, 51}));
}

TEST(LlmInt8, ZeropointUsesAllOfPlusMinus127) {
  // [-1, 3]: s = 4 / 254, z = round(-127 + 63.5) = -64 (half to even).
  ThreadPool pool(1);
  const MatrixF W({-1, 0, 3}, 1, 3);
  const Int8Weight q = quantize_int8(
      W.view(), {.bits = 8, .group_size = -1, .scale_dtype = DType::kF32}, {},
      pool);
  EXPECT_FLOAT_EQ(q.scales[0], 4.0f / 254);
  ASSERT_EQ(q.zeros.size(), 1u);
  EXPECT_NEAR(q.zeros[0], -63.5, 0.51);
  EXPECT_NEAR(q.codes[0], -127, 1);
  EXPECT_EQ(q.codes[1], q.zeros[0]);
  EXPECT_NEAR(q.codes[2], 127, 1);
}

TEST(LlmInt8, EveryRowOfTheTableDecodesToWithinHalfAStep) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(9, 31, 4);
  EXPECT_EQ(llm_int8_rows().size(), 8u);
  for (const LlmInt8Row& row : llm_int8_rows()) {
    QuantizeConfig config = llm_int8_config(row);
    config.llm_int8.outliers = LlmInt8Config::Outliers::kBatch;
    const QuantizeResult result = run_method(layer, config, pool);
    check(result.weight, row.name);
    const auto& q = std::get<Int8Weight>(result.weight);
    EXPECT_EQ(q.scales.size(), row.group_size == 0 ? 1u : 9u);
    EXPECT_EQ(q.zeros.empty(), row.symmetric);
    EXPECT_EQ(result.input.range, row.range);
    EXPECT_EQ(result.input.symmetric, row.symmetric);
    EXPECT_EQ(result.input.outlier_threshold, row.decomposition ? 6.0f : 0.0f);
    const MatrixF decoded = dequantize(result.weight);
    for (std::size_t o = 0; o < 9; ++o) {
      const float s = q.scales[q.scales.size() == 1 ? 0 : o];
      for (std::size_t i = 0; i < 31; ++i) {
        // A zero point is off by up to half, which an extreme code feels.
        EXPECT_LE(std::abs(decoded(o, i) - layer.W(o, i)), s * 1.001f);
      }
    }
  }
  EXPECT_EQ(find_llm_int8_row("absmax row-wise").group_size, 0);
  EXPECT_THROW(find_llm_int8_row("absmax colwise"), Error);
}

TEST(LlmInt8, CalibratedOutliersStayInF16AndOutOfTheScales) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(6, 20, 4);
  for (float& a : layer.stats.abs_max) a = 5.9f;
  layer.stats.abs_max[3] = 6.0f;
  layer.stats.abs_max[11] = 80.0f;
  for (std::size_t o = 0; o < 6; ++o) layer.W(o, 11) = 1000.0f;
  QuantizeConfig config =
      llm_int8_config(find_llm_int8_row("absmax vector-wise + decomposition"));
  config.llm_int8.outliers = LlmInt8Config::Outliers::kCalibrated;
  const QuantizeResult result = run_method(layer, config, pool);
  check(result.weight, "layer");
  const auto& q = std::get<Int8Weight>(result.weight);
  EXPECT_EQ(q.outlier_columns, (std::vector<std::uint32_t>{3, 11}));
  EXPECT_EQ(result.input.outlier_threshold, 0.0f);
  EXPECT_EQ(result.notes.size(), 1u);
  const MatrixF decoded = dequantize(result.weight);
  for (std::size_t o = 0; o < 6; ++o) {
    EXPECT_LT(q.scales[o], 0.05f);
    EXPECT_EQ(decoded(o, 11), 1000.0f);
    EXPECT_EQ(decoded(o, 3), f16_to_float(f16_from_float(layer.W(o, 3))));
    EXPECT_EQ(q.codes[o * 20 + 3], 0);
  }
}

TEST(LlmInt8, IsDynamicInt8UnlessTold) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(6, 20, 4);
  QuantizeConfig config{.method = "llm_int8"};
  config.weights = {.bits = 8, .group_size = -1, .symmetric = true};
  config.llm_int8.outliers = LlmInt8Config::Outliers::kBatch;
  const QuantizeResult result = run_method(layer, config, pool);
  EXPECT_EQ(result.input.kind, ActivationQuant::Kind::kInt);
  EXPECT_EQ(result.input.range, ActivationQuant::Range::kToken);
  EXPECT_EQ(result.input.outlier_threshold, 6.0f);
}

TEST(LlmInt8, RefusesOtherGrids) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(6, 20, 4);
  QuantizeConfig config{.method = "llm_int8"};
  config.weights = {.bits = 8, .group_size = 16};
  EXPECT_THROW(run_method(layer, config, pool), Error);
  config.weights = {.bits = 4, .group_size = -1};
  EXPECT_THROW(run_method(layer, config, pool), Error);
}

}  // namespace
}  // namespace llmpress

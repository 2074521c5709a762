#include "quantizers/rtn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "quantizers/method.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::Layer;
using testing_support::random_matrix;
using testing_support::run_method;

TEST(Rtn, ChoosesThePackedTypeByScheme) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(4, 64, 1);
  QuantizeConfig config;
  config.weights.bits = 8;
  config.weights.group_size = -1;
  EXPECT_TRUE(std::holds_alternative<GroupedIntWeight>(
      round_to_nearest(W.view(), config, pool)));
  config.input.kind = ActivationQuant::Kind::kInt;
  EXPECT_TRUE(std::holds_alternative<Int8Weight>(
      round_to_nearest(W.view(), config, pool)));
  config.weights.group_size = 32;
  EXPECT_TRUE(std::holds_alternative<GroupedIntWeight>(
      round_to_nearest(W.view(), config, pool)));
  config.weights.type = WeightType::kFp8E4M3;
  EXPECT_TRUE(std::holds_alternative<Fp8Weight>(
      round_to_nearest(W.view(), config, pool)));
  config.weights.type = WeightType::kNf4;
  EXPECT_TRUE(std::holds_alternative<Table4Weight>(
      round_to_nearest(W.view(), config, pool)));
  config.weights.type = WeightType::kNvfp4;
  EXPECT_TRUE(std::holds_alternative<MicroFp4Weight>(
      round_to_nearest(W.view(), config, pool)));
  config.weights.type = WeightType::kFloat;
  EXPECT_TRUE(std::holds_alternative<DenseWeight>(
      round_to_nearest(W.view(), config, pool)));
}

TEST(Rtn, Int8DecodesAsTheGroupedFormDoes) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(6, 33, 2);
  for (const std::int64_t group_size : {-1, 0}) {
    for (const bool symmetric : {false, true}) {
      QuantizeConfig config;
      config.weights = {
          .bits = 8, .group_size = group_size, .symmetric = symmetric};
      const MatrixF grouped =
          dequantize(round_to_nearest(W.view(), config, pool));
      config.input.kind = ActivationQuant::Kind::kInt;
      const PackedWeight int8 = round_to_nearest(W.view(), config, pool);
      check(int8, "int8");
      const MatrixF decoded = dequantize(int8);
      EXPECT_TRUE(std::ranges::equal(grouped.data(), decoded.data()));
    }
  }
}

TEST(Rtn, MoreBitsAndSmallerGroupsNeverHurt) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(16, 96, 3);
  QuantizeConfig config;
  double last = 1e30;
  for (int bits = 2; bits <= 8; ++bits) {
    config.weights.bits = bits;
    config.weights.group_size = -1;
    const double channel = run_method(layer, config, pool).output_error;
    config.weights.group_size = 16;
    const double grouped = run_method(layer, config, pool).output_error;
    EXPECT_LT(channel, last);
    EXPECT_LT(grouped, channel);
    last = channel;
  }
}

TEST(Rtn, ReportsMeanSquaredErrorOfTheOutput) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(7, 40, 4);
  const QuantizeResult result = run_method(layer, {}, pool);
  const MatrixF Q = dequantize(result.weight);
  double sum = 0;
  for (std::size_t t = 0; t < layer.X.rows(); ++t) {
    for (std::size_t o = 0; o < 7; ++o) {
      double d = 0;
      for (std::size_t i = 0; i < 40; ++i) {
        d += static_cast<double>((layer.W(o, i) - Q(o, i)) * layer.X(t, i));
      }
      sum += d * d;
    }
  }
  sum /= static_cast<double>(layer.X.rows() * 7);
  EXPECT_NEAR(result.output_error, sum, 1e-4 * sum);
}

// Groups whose scales are beyond f16 at either end, by every method that takes
// integers in groups: as close as weights of an ordinary size.
TEST(Rtn, ScalesThatF16DoesNotHoldAreStoredInF32AndSaid) {
  ThreadPool pool(1);
  for (const char* const method : {"rtn", "hqq"}) {
    for (const float size : {1e-7f, 1.0f, 1e7f}) {
      MatrixF W(3, 32);
      Rng rng(4);
      for (float& w : W.data()) w = size * static_cast<float>(rng.normal());
      QuantizeConfig config{.method = method};
      config.weights = {.bits = 4, .group_size = 16, .symmetric = false};
      const QuantizeResult result = quantize_weight(
          {.W = W.view(), .config = &config, .pool = &pool, .name = "l"});
      const auto& packed = std::get<GroupedIntWeight>(result.weight);
      const bool wide = size != 1.0f;
      EXPECT_EQ(packed.scale_dtype, wide ? DType::kF32 : DType::kF16) << size;
      const bool said = std::ranges::any_of(result.notes, [](const auto& note) {
        return note.find("stored as f32") != std::string::npos;
      });
      EXPECT_EQ(said, wide) << method << " " << size;
      const MatrixF Q = dequantize(result.weight);
      double error = 0, norm = 0;
      for (std::size_t i = 0; i < W.size(); ++i) {
        const double w = W.data()[i], d = Q.data()[i] - w;
        error += d * d;
        norm += w * w;
      }
      // A step of 1/15 of a group's range of about 4 deviations.
      EXPECT_LT(std::sqrt(error / norm), 0.15) << method << " " << size;
    }
  }
}

TEST(Rtn, SaysThatF16CannotHoldAWeight) {
  ThreadPool pool(1);
  MatrixF W(1, 2);
  W(0, 0) = 65519;  // rounds to 65504
  QuantizeConfig config;
  config.weights.type = WeightType::kFloat;
  config.weights.float_dtype = DType::kF16;
  EXPECT_EQ(dequantize(round_to_nearest(W.view(), config, pool))(0, 0), 65504);
  W(0, 0) = 65520;
  EXPECT_THROW(round_to_nearest(W.view(), config, pool), Error);
}

TEST(Imatrix, BeatsPlainRoundingWhereInputsDiffer) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(32, 128, 5);
  for (const int bits : {2, 3, 4}) {
    QuantizeConfig config;
    config.weights.bits = bits;
    config.weights.group_size = 32;
    const double plain = run_method(layer, config, pool).output_error;
    config.method = "imatrix";
    EXPECT_LT(run_method(layer, config, pool).output_error, plain) << bits;
  }
}

TEST(Imatrix, NeedsCalibration) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(2, 16, 5);
  layer.stats.square_mean = {};
  EXPECT_THROW(run_method(layer, {.method = "imatrix"}, pool), Error);
}

}  // namespace
}  // namespace llmpress

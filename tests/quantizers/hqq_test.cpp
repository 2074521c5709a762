#include "quantizers/hqq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "compress/core/error.h"
#include "quantizers/rtn.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

double mean_abs_error(const MatrixF& a, const MatrixF& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    sum += static_cast<double>(std::abs(a.data()[k] - b.data()[k]));
  }
  return sum / static_cast<double>(a.size());
}

TEST(Hqq, FindsTheZeroOfAGridThatRangeMissesByHand) {
  // Range [0, 3.4] at 2 bits: s = 3.4 / 3. With z = 0 the codes are 0 1 2 3;
  // the step moves z to the mean of q - w / s.
  const std::vector<float> values = {0, 1, 2, 3.4f};
  const MatrixF W(values, 1, 4);
  ThreadPool pool(1);
  const GroupedIntWeight q = quantize_hqq_weight(
      W.view(), {.bits = 2, .group_size = 4, .scale_dtype = DType::kF32},
      {.p = 1, .beta = 1e9, .iterations = 1}, pool);
  const float s = 3.4f / 3;
  EXPECT_FLOAT_EQ(q.scales[0], s);
  // p = 1, huge beta: shrink(x) = x, E = W - W', z unchanged.
  EXPECT_NEAR(q.float_zeros[0], 0, 1e-5f);
}

using Case = std::tuple<int, std::int64_t, DType>;
class HqqShapes : public testing::TestWithParam<Case> {};

TEST_P(HqqShapes, IsNotWorseThanRoundToNearest) {
  const auto [bits, group_size, dtype] = GetParam();
  const MatrixF W = random_matrix(11, 101, 5);
  ThreadPool pool(2);
  QuantizeConfig config;
  config.weights = {
      .bits = bits, .group_size = group_size, .scale_dtype = dtype};
  const GroupedIntWeight q =
      quantize_hqq_weight(W.view(), config.weights, config.hqq, pool);
  check(PackedWeight(q), "hqq");
  const MatrixF rtn = dequantize(round_to_nearest(W.view(), config, pool));
  EXPECT_LE(mean_abs_error(dequantize(q), W), 1.01 * mean_abs_error(rtn, W));
}

INSTANTIATE_TEST_SUITE_P(BitsByGroup, HqqShapes,
                         testing::Combine(testing::Values(2, 3, 4, 8),
                                          testing::Values(-1, 0, 32, 64),
                                          testing::Values(DType::kF32,
                                                          DType::kF16)));

TEST(Hqq, IterationsHelp) {
  MatrixF W = random_matrix(32, 128, 5);
  for (float& w : W.data()) w = w * w + 0.5f;  // skewed, and not around 0
  ThreadPool pool(1);
  const WeightScheme scheme{.bits = 2, .group_size = 64};
  const double none =
      mean_abs_error(dequantize(quantize_hqq_weight(W.view(), scheme,
                                                    {.iterations = 0}, pool)),
                     W);
  const double many = mean_abs_error(
      dequantize(quantize_hqq_weight(W.view(), scheme, {}, pool)), W);
  EXPECT_LT(many, 0.99 * none);
}

TEST(Hqq, DegenerateGroupsDecodeToThemselves) {
  ThreadPool pool(1);
  for (const float value : {0.0f, 5.0f, -5.0f, 1e-30f, 1e30f, 12345.0f}) {
    for (const DType dtype : {DType::kF32, DType::kF16}) {
      if (dtype == DType::kF16 && value > 65504) continue;
      MatrixF W(2, 10);
      for (float& w : W.data()) w = value;
      const GroupedIntWeight q = quantize_hqq_weight(
          W.view(), {.bits = 4, .group_size = 8, .scale_dtype = dtype}, {},
          pool);
      check(PackedWeight(q), "hqq");
      const MatrixF decoded = dequantize(q);
      for (const float w : decoded.data()) {
        EXPECT_NEAR(w, value, 1e-3f * std::abs(value) + 1e-6f);
      }
    }
  }
}

TEST(Hqq, RefusesWhatItCannotUse) {
  ThreadPool pool(1);
  const auto layer = testing_support::correlated_layer(2, 8, 1);
  QuantizeConfig config{.method = "hqq"};
  config.weights.symmetric = true;
  EXPECT_THROW(testing_support::run_method(layer, config, pool), Error);
  config.weights.symmetric = false;
  config.hqq.p = 0;
  EXPECT_THROW(testing_support::run_method(layer, config, pool), Error);
}

}  // namespace
}  // namespace llmpress

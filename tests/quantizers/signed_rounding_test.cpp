#include "quantizers/signed_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "compress/core/error.h"
#include "quantizers/rtn.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

MatrixF rounded(const SignedRounding& rounding, std::size_t out, std::size_t in,
                ThreadPool& pool) {
  MatrixF W_q(out, in);
  rounding.round_into(W_q.view(), pool);
  return W_q;
}

void expect_near(const MatrixF& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    EXPECT_NEAR(got.data()[k], wanted[k], 2e-6f) << k;
  }
}

// Range [-1, 2] at 2 bits: s = 1, z = 1. Codes of W / s + v + z:
//   round(0.4 + 0.2) + 1 = 2,  round(-1) + 1 = 0,  round(2) + 1 = 3,
//   round(2 + 0.5) + 1 = 3 (half to even; inside the grid).
TEST(SignedRounding, RoundsAndDifferentiatesAGroupByHand) {
  ThreadPool pool(1);
  const MatrixF W({0.4f, -1, 2, 2}, 1, 4);
  SignedRounding rounding(
      W.view(), {.bits = 2, .group_size = 4, .scale_dtype = DType::kF32}, pool);
  rounding.set_parameters({.offset = MatrixF({0.2f, 0, 0, 0.6f}, 1, 4),
                           .low = MatrixF({1}, 1, 1),
                           .high = MatrixF({1}, 1, 1)});
  // The last one has code 3 + 1 = 4: clamped to 3.
  expect_near(rounded(rounding, 1, 4, pool), {1, -1, 2, 2});
  const MatrixF D({1, 10, 100, 1000}, 1, 4);
  const RoundingParameters d = rounding.gradient(D.view());
  expect_near(d.offset, {1, 0, 0, 0});
  // lo / s = -1, so dL/ds = 1 (1 - 0.4) + 10 (-1 + 1) + 1100 (2 + 1) = 3300.6
  // dL/d(lo) = 1110 - 3300.6 / 3, times lo = -1; dL/d(hi) = 3300.6 / 3, times 2
  EXPECT_NEAR(d.low(0, 0), -9.8f, 1e-3f);
  EXPECT_NEAR(d.high(0, 0), 2200.4f, 1e-3f);
}

struct Example {
  MatrixF W{{0.9f, -0.35f, 0.2f, -1.4f, 0.05f, 0.6f, 0.3f, 0.8f, 0.45f, -0.7f,
             -0.15f, -0.52f},
            2,
            6};
  MatrixF D{
      {1, -2, 0.5f, 0.25f, -1.5f, 3, -0.75f, 1.25f, 2, -1, 0.5f, -2.5f}, 2, 6};
  RoundingParameters learned{
      .offset = MatrixF({0.3f, -0.2f, 0.45f, 0.1f, -0.4f, 0.25f, -0.1f, 0.35f,
                         -0.3f, 0.2f, 0.15f, -0.45f},
                        2, 6),
      .low = MatrixF({0.9f, 0.8f, 1.0f, 0.7f}, 2, 2),
      .high = MatrixF({0.75f, 0.95f, 0.6f, 1.0f}, 2, 2)};
};

// Values and gradients of the formulas by torch's autograd in float64, with
// x + (round(x) - x).detach() for rounding.
TEST(SignedRounding, HasTheGradientsOfAutogradWithZeroPoints) {
  ThreadPool pool(1);
  const Example at;
  SignedRounding rounding(
      at.W.view(), {.bits = 2, .group_size = 3, .scale_dtype = DType::kF32},
      pool);
  rounding.set_parameters(at.learned);
  expect_near(rounded(rounding, 2, 6, pool),
              {0.66f, -0.33f, 0.33f, -1.12666667f, 0, 0.56333333f, 0.32f, 0.48f,
               0.48f, -0.49f, -0.16333333f, -0.49f});
  const RoundingParameters d = rounding.gradient(at.D.view());
  expect_near(d.offset,
              {0, 0, 0.165f, 0, -0.845f, 0, -0.12f, 0, 0, 0, 0.08166667f, 0});
  expect_near(d.low, {0.72828283f, -0.30581854f, 0, 2.44047619f});
  expect_near(d.high, {0.97272727f, 1.81893491f, 2.575f, 0});
}

TEST(SignedRounding, HasTheGradientsOfAutogradSymmetric) {
  ThreadPool pool(1);
  const Example at;
  SignedRounding rounding(at.W.view(),
                          {.bits = 3,
                           .group_size = 3,
                           .symmetric = true,
                           .scale_dtype = DType::kF32},
                          pool);
  rounding.set_parameters(at.learned);
  expect_near(rounded(rounding, 2, 6, pool),
              {0.675f, -0.3375f, 0.16875f, -1.12f, 0, 0.56f, 0.36f, 0.48f,
               0.48f, -0.49f, -0.1225f, -0.49f});
  const RoundingParameters d = rounding.gradient(at.D.view());
  expect_near(d.offset, {0, 0.3375f, -0.084375f, 0, -0.42f, 0.84f, 0.09f, 0, 0,
                         0, 0.06125f, 0});
  expect_near(d.low, {0, -0.40625f, 0, 2.46964286f});
  expect_near(d.high, {0.84583333f, 0, 2.525f, 0});
}

// Away from the edges of rounding and clamping W_q is linear in the scale while
// the codes stay: the gradient without the straight-through terms of rounding
// is a difference of values. Here all weights are clamped at an end, so that
// nothing is rounded.
TEST(SignedRounding, MatchesDifferencesWhereAllIsClamped) {
  ThreadPool pool(1);
  const MatrixF W({-1, 2, -1, 2}, 1, 4), D({0.3f, -0.7f, 0.2f, 1.1f}, 1, 4);
  SignedRounding rounding(W.view(),
                          {.bits = 8,
                           .group_size = 4,
                           .symmetric = true,
                           .scale_dtype = DType::kF32},
                          pool);
  const auto loss = [&](float high) {
    rounding.set_parameters({.offset = MatrixF(1, 4),
                             .low = MatrixF({0.1f}, 1, 1),
                             .high = MatrixF({high}, 1, 1)});
    const MatrixF W_q = rounded(rounding, 1, 4, pool);
    double sum = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      sum +=
          static_cast<double>(W_q.data()[k]) * static_cast<double>(D.data()[k]);
    }
    return sum;
  };
  const double difference = (loss(0.251f) - loss(0.249f)) / 0.002;
  (void)loss(0.25f);
  EXPECT_NEAR(rounding.gradient(D.view()).high(0, 0), difference,
              1e-3 * std::abs(difference));
}

using Case = std::tuple<int, std::int64_t, bool, DType>;
class SignedRoundingShapes : public testing::TestWithParam<Case> {
 protected:
  WeightScheme scheme() const {
    const auto [bits, group_size, symmetric, dtype] = GetParam();
    return {.bits = bits,
            .group_size = group_size,
            .symmetric = symmetric,
            .scale_dtype = dtype};
  }
};

TEST_P(SignedRoundingShapes, IsWrittenAsItWasTrainedBitForBit) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(37, 101, 3);
  SignedRounding rounding(W.view(), scheme(), pool);
  for (std::uint64_t i = 0; i < 5; ++i) {
    MatrixF D = random_matrix(37, 101, 10 + i);
    rounding.step(D.view(), {.offset = 0.1f, .range = 0.05f}, pool);
  }
  const GroupedIntWeight packed = rounding.pack(pool);
  check(PackedWeight(packed), "learned");
  const MatrixF W_q = rounded(rounding, 37, 101, pool);
  const MatrixF decoded = dequantize(packed);
  for (std::size_t k = 0; k < W.size(); ++k) {
    ASSERT_EQ(W_q.data()[k], decoded.data()[k]) << k;
  }
}

TEST_P(SignedRoundingShapes, StartsAsRoundingToNearestWithZeroPoints) {
  if (scheme().symmetric) return;  // has the full signed range instead
  ThreadPool pool(2);
  const MatrixF W = random_matrix(37, 101, 3);
  const QuantizeConfig config{.weights = scheme()};
  const MatrixF nearest = dequantize(round_to_nearest(W.view(), config, pool));
  const MatrixF start =
      rounded(SignedRounding(W.view(), scheme(), pool), 37, 101, pool);
  EXPECT_TRUE(std::ranges::equal(start.data(), nearest.data()));
}

INSTANTIATE_TEST_SUITE_P(
    BitsByGroup, SignedRoundingShapes,
    testing::Combine(testing::Values(2, 3, 4, 8), testing::Values(-1, 32, 128),
                     testing::Bool(),
                     testing::Values(DType::kF16, DType::kF32)));

TEST(SignedRounding, StepsBySignsWithinTheirBounds) {
  ThreadPool pool(1);
  const MatrixF W({-1, 0.1f, 0.7f, 2}, 1, 4);
  SignedRounding rounding(
      W.view(), {.bits = 4, .group_size = 4, .scale_dtype = DType::kF32}, pool);
  MatrixF D({0, 3, -1e-6f, 0}, 1, 4);
  rounding.step(D.view(), {.offset = 0.25f, .range = 0}, pool);
  expect_near(rounding.parameters().offset, {0, -0.25f, 0.25f, 0});
  EXPECT_EQ(rounding.parameters().low(0, 0), 1);
  for (int i = 0; i < 9; ++i) {
    D = MatrixF({0, 3, -1e-6f, 0}, 1, 4);
    rounding.step(D.view(), {.offset = 0.25f, .range = 0.5f}, pool);
  }
  expect_near(rounding.parameters().offset, {0, -1, 1, 0});
  EXPECT_GE(rounding.parameters().low(0, 0), 1.0f / 16);
  EXPECT_LE(rounding.parameters().high(0, 0), 1);
}

TEST(SignedRounding, KeepsScalesThatF16DoesNotHoldInF32) {
  ThreadPool pool(1);
  for (const float size : {1e-6f, 1e8f}) {
    MatrixF W = random_matrix(4, 64, 5);
    for (float& w : W.data()) w *= size;
    const GroupedIntWeight packed =
        SignedRounding(W.view(), {.bits = 4, .group_size = 32}, pool)
            .pack(pool);
    EXPECT_EQ(packed.scale_dtype, DType::kF32) << size;
  }
}

}  // namespace
}  // namespace llmpress

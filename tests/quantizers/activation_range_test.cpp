#include "quantizers/activation_range.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;

TEST(ActivationRange, FixesStaticGridsFromCalibration) {
  InputStats stats;
  stats.abs_max = {2, 12.7f, 1};
  stats.min = {-1, -12.7f, 0};
  stats.max = {2, 5, 1};
  ActivationQuant input{.kind = Kind::kInt, .range = Range::kStatic};
  EXPECT_FLOAT_EQ(resolve_activation(input, &stats, "x").static_scale,
                  12.7f / 127.5f);
  input.symmetric = false;  // [-12.7, 5]: s = 17.7 / 255, z = -128 + 182.97
  const ActivationQuant asymmetric = resolve_activation(input, &stats, "x");
  EXPECT_FLOAT_EQ(asymmetric.static_scale, 17.7f / 255);
  EXPECT_EQ(asymmetric.static_zero, 55);
  input = {.kind = Kind::kFp8, .range = Range::kStatic};
  EXPECT_FLOAT_EQ(resolve_activation(input, &stats, "x").static_scale,
                  12.7f / 448);
  stats.abs_max = {0, 0, 0};
  EXPECT_EQ(resolve_activation(input, &stats, "x").static_scale, 1.0f);
}

TEST(ActivationRange, LeavesDynamicGridsAlone) {
  const ActivationQuant input{.kind = Kind::kInt, .range = Range::kToken};
  EXPECT_EQ(resolve_activation(input, nullptr, "x"), input);
  EXPECT_FALSE(activation_needs(input).channel_moments);
}

TEST(ActivationRange, RefusesStaticGridsWithoutCalibration) {
  const ActivationQuant input{.kind = Kind::kInt, .range = Range::kStatic};
  EXPECT_TRUE(activation_needs(input).channel_moments);
  EXPECT_THROW(resolve_activation(input, nullptr, "x"), Error);
  const ActivationQuant odd{.kind = Kind::kInt, .bits = 6};
  EXPECT_THROW(resolve_activation(odd, nullptr, "x"), Error);
}

TEST(ActivationRange, RoundsByTokenTensorAndOutlierColumn) {
  MatrixF X({1.275f, 0.013f, 12.75f, 0.13f}, 2, 2);
  MatrixF token = X;
  round_activations_in_place(token.view(), {.kind = Kind::kInt});
  EXPECT_NEAR(token(0, 1), 0.01f, 1e-6f);  // step 0.01
  EXPECT_NEAR(token(1, 1), 0.1f, 1e-6f);   // step 0.1
  MatrixF tensor = X;
  round_activations_in_place(tensor.view(),
                             {.kind = Kind::kInt, .range = Range::kTensor});
  EXPECT_EQ(tensor(0, 1), 0.0f);
  EXPECT_NEAR(tensor(0, 0), 1.3f, 1e-6f);
  EXPECT_NEAR(tensor(1, 0), 12.7f, 1e-6f);
  MatrixF split = X;
  round_activations_in_place(split.view(),
                             {.kind = Kind::kInt, .outlier_threshold = 6});
  EXPECT_EQ(split(0, 0),
            X(0, 0));  // its column has an outlier in the other row
  EXPECT_NEAR(split(1, 1), 0.13f, 1e-6f);
}

TEST(ActivationRange, RoundsEachGroupOfATokenOnItsOwn) {
  const MatrixF X = testing_support::random_matrix(4, 22, 5);
  const ActivationQuant groups{
      .kind = Kind::kInt, .range = Range::kGroup, .group_size = 8};
  MatrixF R = X;
  round_activations_in_place(R.view(), groups);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t i = 0; i < X.cols(); i += 8) {
      const std::size_t count = std::min<std::size_t>(8, X.cols() - i);
      MatrixF part(1, count);
      std::ranges::copy(X.row(t).subspan(i, count), part.row(0).begin());
      round_activations_in_place(part.view(), {.kind = Kind::kInt});
      for (std::size_t k = 0; k < count; ++k) {
        EXPECT_EQ(R(t, i + k), part(0, k)) << t << ' ' << i + k;
      }
    }
  }
  EXPECT_THROW(resolve_activation({.kind = Kind::kInt, .range = Range::kGroup},
                                  nullptr, "x"),
               Error);
}

TEST(ActivationRange, RoundedValuesAreWithinAStep) {
  const MatrixF X = testing_support::random_matrix(9, 30, 3);
  for (const bool symmetric : {true, false}) {
    for (const int bits : {4, 8}) {
      MatrixF R = X;
      round_activations_in_place(
          R.view(), {.kind = Kind::kInt, .bits = bits, .symmetric = symmetric});
      for (std::size_t t = 0; t < 9; ++t) {
        float lo = 0, hi = 0;
        for (const float x : X.row(t)) {
          lo = std::min(lo, x);
          hi = std::max(hi, x);
        }
        const float top = static_cast<float>((1 << bits) - 1);
        const float step =
            symmetric ? 2 * std::max(-lo, hi) / top : (hi - lo) / top;
        for (std::size_t i = 0; i < 30; ++i) {
          EXPECT_LE(std::abs(R(t, i) - X(t, i)),
                    step * (symmetric ? 0.501f : 1.001f));
        }
      }
    }
  }
}

}  // namespace
}  // namespace llmpress

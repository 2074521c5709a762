#include "compress/core/damping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compress/core/error.h"

namespace llmpress {
namespace {

DampedInverse invert(const MatrixF& S, const DampingConfig& config = {},
                     float scale = 1) {
  ThreadPool pool(1);
  return damped_inverse_cholesky(S.view(), scale, config, pool, "layer");
}

TEST(Damping, AddsAFractionOfTheMeanDiagonal) {
  // H = 2 * diag(1, 3): mean 4, damping 0.5 * 4 = 2, so H = diag(4, 8).
  const DampedInverse inverse =
      invert(MatrixF({1, 0, 0, 3}, 2, 2), {.fraction = 0.5}, 2);
  EXPECT_EQ(inverse.damping, 2.0);
  EXPECT_EQ(inverse.damping_fraction, 0.5);
  EXPECT_FLOAT_EQ(inverse.U(0, 0), 1 / std::sqrt(4.0f));
  EXPECT_FLOAT_EQ(inverse.U(1, 1), 1 / std::sqrt(8.0f));
  EXPECT_TRUE(inverse.notes().empty());
}

TEST(Damping, InvertsWhatItDamped) {
  // H = [[2, 1], [1, 2]] undamped: H^-1 = [[2, -1], [-1, 2]] / 3 = U^T U.
  const MatrixF U = invert(MatrixF({2, 1, 1, 2}, 2, 2), {.fraction = 0}).U;
  EXPECT_NEAR(U(0, 0) * U(0, 0), 2.0 / 3, 1e-6);
  EXPECT_NEAR(U(0, 0) * U(0, 1), -1.0 / 3, 1e-6);
  EXPECT_NEAR(U(0, 1) * U(0, 1) + U(1, 1) * U(1, 1), 2.0 / 3, 1e-6);
  EXPECT_EQ(U(1, 0), 0.0f);
}

TEST(Damping, RaisesUntilTheFactorizationSucceedsAndSaysSo) {
  // Eigenvalues 3 and -1, mean diagonal 1: any damping above 1 will do.
  const MatrixF S({1, 2, 2, 1}, 2, 2);
  const DampedInverse inverse =
      invert(S, {.fraction = 0.25, .increment = 0.5, .bound = 2});
  EXPECT_EQ(inverse.damping_fraction, 1.25);
  EXPECT_EQ(inverse.raises, 2u);
  ASSERT_EQ(inverse.notes().size(), 1u);
  EXPECT_NE(inverse.notes()[0].find("1.25"), std::string::npos);
}

TEST(Damping, FailsAtTheBoundOrAtOnceAsThePolicySays) {
  const MatrixF S({1, 2, 2, 1}, 2, 2);
  const auto code = [&](const DampingConfig& config) {
    try {
      invert(S, config);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("layer"), std::string::npos);
      return e.code();
    }
    return ErrorCode::kIo;
  };
  EXPECT_EQ(code({.fraction = 0.25, .increment = 0.5, .bound = 0.8}),
            ErrorCode::kNumeric);
  EXPECT_EQ(code({.fraction = 0.25,
                  .policy = DampingPolicy::kFail,
                  .increment = 0.5,
                  .bound = 2}),
            ErrorCode::kNumeric);
}

TEST(Damping, GivesDeadChannelsADiagonalOfOneAndNamesThem) {
  // diag(4, 0) -> diag(4, 1), mean 2.5, damping 0.
  const DampedInverse inverse =
      invert(MatrixF({4, 0, 0, 0}, 2, 2), {.fraction = 0});
  EXPECT_EQ(inverse.dead, std::vector<std::size_t>{1});
  EXPECT_FLOAT_EQ(inverse.U(0, 0), 0.5f);
  EXPECT_FLOAT_EQ(inverse.U(1, 1), 1.0f);
  EXPECT_EQ(inverse.notes().size(), 1u);
}

TEST(Damping, RefusesMomentsThatAreNotFinite) {
  for (const float bad :
       {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    EXPECT_THROW(invert(MatrixF({1, bad, bad, 1}, 2, 2)), Error);
    EXPECT_THROW(invert(MatrixF({bad, 0, 0, 1}, 2, 2)), Error);
  }
}

TEST(Damping, RefusesConfigurationsThatCannotEnd) {
  EXPECT_THROW(check(DampingConfig{.fraction = -0.1}), Error);
  EXPECT_THROW(check(DampingConfig{.fraction = std::nan("")}), Error);
  EXPECT_THROW(check(DampingConfig{.fraction = 2, .bound = 1}), Error);
  EXPECT_THROW(check(DampingConfig{.increment = 0}), Error);
  EXPECT_THROW(check(DampingConfig{.increment = std::nan("")}), Error);
  EXPECT_NO_THROW(check(DampingConfig{}));
}

}  // namespace
}  // namespace llmpress

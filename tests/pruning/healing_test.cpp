#include "pruning/healing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "pruning/unit_selection.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

using Indices = std::vector<std::size_t>;

Healed heal_on(const MatrixF& W, const MatrixF& S, const Indices& kept,
               const DampingConfig& damping = {}) {
  ThreadPool pool(2);
  return heal(W.view(), S.view(), kept, damping, pool, "layer");
}

// E|W x - W' x_K|^2 / out over the rows of X, in double.
double measured_error(const MatrixF& W, const MatrixF& W_kept,
                      const Indices& kept, const MatrixF& X) {
  double error = 0;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t o = 0; o < W.rows(); ++o) {
      double y = 0;
      for (std::size_t i = 0; i < W.cols(); ++i) {
        y += static_cast<double>(W(o, i)) * static_cast<double>(X(t, i));
      }
      for (std::size_t k = 0; k < kept.size(); ++k) {
        y -= static_cast<double>(W_kept(o, k)) *
             static_cast<double>(X(t, kept[k]));
      }
      error += y * y;
    }
  }
  return error / static_cast<double>(X.rows() * W.rows());
}

TEST(Healing, MatchesAHandComputedCase) {
  // Input 1 goes. S_KK = 2, damping .5 * 2 = 1, S_DK = 1: W' = 3 + 6 * 1 / 3
  // = 5.
  const Healed healed =
      heal_on(MatrixF({3, 6}, 1, 2), MatrixF({2, 1, 1, 4}, 2, 2), {0},
              {.fraction = 0.5});
  EXPECT_FLOAT_EQ(healed.W(0, 0), 5);
  EXPECT_DOUBLE_EQ(healed.error_removed, 36 * 4);
  // 36 * 4 - 2 * 6 * 1 * 2 + 2 * 2 * 2.
  EXPECT_NEAR(healed.error_healed, 144 - 24 + 8, 1e-4);
}

TEST(Healing, IsExactWhereRemovedInputsFollowFromKeptOnes) {
  MatrixF X = normal_matrix(100, 5, 1);
  for (std::size_t t = 0; t < 100; ++t) X(t, 4) = X(t, 0) - 2 * X(t, 2);
  ThreadPool pool(2);
  const MatrixF S = stats_of(X, pool).second_moment;
  const MatrixF W = normal_matrix(3, 5, 2);
  const Indices kept = {0, 1, 2, 3};
  const Healed healed = heal_on(W, S, kept, {.fraction = 1e-6});
  for (std::size_t o = 0; o < 3; ++o) {
    EXPECT_NEAR(healed.W(o, 0), W(o, 0) + W(o, 4), 1e-4);
    EXPECT_NEAR(healed.W(o, 1), W(o, 1), 1e-4);
    EXPECT_NEAR(healed.W(o, 2), W(o, 2) - 2 * W(o, 4), 1e-4);
  }
  EXPECT_LT(measured_error(W, healed.W, kept, X), 1e-6);
}

TEST(Healing, NeverLosesToPlainRemovalAtAnyShareShapeOrDamping) {
  ThreadPool pool(2);
  for (const auto& [out, in] :
       {std::pair<std::size_t, std::size_t>{1, 2}, {7, 13}, {20, 64}}) {
    const MatrixF X = correlated_inputs(3 * in, in, 3);
    const MatrixF S = stats_of(X, pool).second_moment;
    const MatrixF W = normal_matrix(out, in, 4);
    for (std::size_t keep = 1; keep < in; keep += 1 + in / 5) {
      Indices kept;
      for (std::size_t k = 0; k < keep; ++k) kept.push_back(k * in / keep);
      const MatrixF removed = select_columns(W.view(), kept);
      const double plain = measured_error(W, removed, kept, X);
      double last = plain * (1 + 1e-5);
      for (const double fraction : {100.0, 1.0, 0.01, 1e-4}) {
        const Healed healed = heal_on(W, S, kept, {fraction, {}, 0.01, 1000});
        const double error = measured_error(W, healed.W, kept, X);
        EXPECT_NEAR(healed.error_removed, plain, 1e-4 * plain);
        EXPECT_NEAR(healed.error_healed, error, 1e-4 * plain);
        // Less damping means closer to the best there is.
        EXPECT_LE(error, last)
            << out << "x" << in << " " << keep << " " << fraction;
        last = error + 1e-5 * plain;
      }
    }
  }
}

TEST(Healing, IsMuchBetterThanPlainRemovalOnCorrelatedInputs) {
  ThreadPool pool(2);
  const MatrixF X = correlated_inputs(400, 60, 5);
  Indices kept;
  for (std::size_t i = 0; i < 60; i += 2) kept.push_back(i);
  const Healed healed =
      heal_on(normal_matrix(16, 60, 6), stats_of(X, pool).second_moment, kept);
  EXPECT_LT(healed.error_healed, 0.6 * healed.error_removed);
}

TEST(Healing, ChangesNothingWhereNothingGoesOrNothingIsKnown) {
  const MatrixF W = normal_matrix(2, 3, 7);
  const Healed whole = heal_on(W, MatrixF(3, 3), {0, 1, 2});
  EXPECT_TRUE(std::ranges::equal(whole.W.data(), W.data()));
  EXPECT_EQ(whole.error_removed, 0);
  const Healed silent = heal_on(W, MatrixF(3, 3), {0, 2});
  const MatrixF removed = select_columns(W.view(), Indices{0, 2});
  EXPECT_TRUE(std::ranges::equal(silent.W.data(), removed.data()));
  EXPECT_EQ(silent.error_healed, 0);
}

TEST(Healing, GivesTheSameBytesAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  const MatrixF S = correlated_stats(300, 8, one).second_moment;
  const MatrixF W = normal_matrix(65, 300, 9);
  Indices kept;
  for (std::size_t i = 0; i < 300; i += 3) kept.push_back(i);
  const Healed a = heal(W.view(), S.view(), kept, {}, one, "a");
  const Healed b = heal(W.view(), S.view(), kept, {}, three, "b");
  EXPECT_TRUE(std::ranges::equal(a.W.data(), b.W.data()));
  EXPECT_EQ(a.error_healed, b.error_healed);
}

TEST(Healing, RefusesWhatItCannotSolve) {
  const MatrixF W({1, 2, 3}, 1, 3);
  const MatrixF bad({1, 2, 0, 2, 1, 0, 0, 0, 1}, 3, 3);
  EXPECT_THROW(heal_on(W, bad, {0, 1}, {0.01, DampingPolicy::kFail}), Error);
  EXPECT_THROW(heal_on(W, MatrixF(2, 2), {0}), Error);
  EXPECT_THROW(heal_on(W, bad, {}), Error);
  EXPECT_THROW(heal_on(W, bad, {1, 0}), Error);
  EXPECT_THROW(heal_on(W, bad, {0, 3}), Error);
  MatrixF nan(3, 3);
  nan(0, 0) = nan(1, 1) = nan(2, 2) = std::nanf("");
  EXPECT_THROW(heal_on(W, nan, {0, 1}), Error);
}

// y = W_true X_true^T against W X^T: the moments of what W lacks.
ResidualMoments moments_of(const MatrixF& Y, const MatrixF& W, const MatrixF& Z,
                           std::size_t batch) {
  ThreadPool pool(2);
  MatrixF residual(Y);
  MatrixF now(Z.rows(), W.rows());
  matmul_transposed(Z.view(), W.view(), now.view(), pool);
  for (std::size_t k = 0; k < now.size(); ++k) {
    residual.data()[k] -= now.data()[k];
  }
  ResidualCollector collector(W.rows(), W.cols(), Z.rows());
  for (std::size_t t = 0; t < Z.rows(); t += batch) {
    const std::size_t rows = std::min(batch, Z.rows() - t);
    collector.add(Z.view().rows_slice(t, rows),
                  residual.view().rows_slice(t, rows), pool);
  }
  return collector.finish();
}

TEST(Refit, MatchesAHandComputedCase) {
  // z = 1, 3; y = 4, 6; W = 1: r = 3, 3, E[r z] = 6, E[z z] = 5; damping 5:
  // W' = 1 + 6 / 10. The errors left: 4 - 1.6 and 6 - 4.8, squared and
  // averaged.
  ThreadPool pool(1);
  const MatrixF W({1}, 1, 1);
  const Healed healed = refit(
      W.view(), moments_of(MatrixF({4, 6}, 2, 1), W, MatrixF({1, 3}, 2, 1), 1),
      {.fraction = 1.0}, pool, "layer");
  EXPECT_FLOAT_EQ(healed.W(0, 0), 1.6f);
  EXPECT_DOUBLE_EQ(healed.error_removed, 9);
  EXPECT_NEAR(healed.error_healed, (2.4 * 2.4 + 1.2 * 1.2) / 2, 1e-6);
}

// With the inputs that stay as z and W_K as the weight, refit is heal.
TEST(Refit, EqualsHealWhereInputsWereOnlyRemoved) {
  const MatrixF X = correlated_inputs(300, 24, 5), W = normal_matrix(7, 24, 6);
  const Indices kept = {0, 2, 3, 5, 8, 13, 14, 20, 21};
  ThreadPool pool(2);
  const Healed healed =
      heal_on(W, stats_of(X, pool).second_moment, kept, {.fraction = 0.05});
  MatrixF Y(X.rows(), W.rows());
  matmul_transposed(X.view(), W.view(), Y.view(), pool);
  const MatrixF W_K = select_columns(W.view(), kept);
  const Healed refitted =
      refit(W_K.view(), moments_of(Y, W_K, select_columns(X.view(), kept), 64),
            {.fraction = 0.05}, pool, "layer");
  for (std::size_t k = 0; k < W_K.size(); ++k) {
    EXPECT_NEAR(refitted.W.data()[k], healed.W.data()[k], 2e-4) << k;
  }
  EXPECT_NEAR(refitted.error_removed / healed.error_removed, 1, 1e-4);
  EXPECT_NEAR(refitted.error_healed / healed.error_healed, 1, 1e-3);
}

TEST(Refit, LeavesAWeightThatIsRightAlone) {
  const MatrixF Z = correlated_inputs(100, 12, 1), W = normal_matrix(5, 12, 2);
  ThreadPool pool(2);
  MatrixF Y(Z.rows(), W.rows());
  matmul_transposed(Z.view(), W.view(), Y.view(), pool);
  const Healed healed =
      refit(W.view(), moments_of(Y, W, Z, 100), {}, pool, "layer");
  EXPECT_EQ(healed.error_removed, 0);
  for (std::size_t k = 0; k < W.size(); ++k) {
    EXPECT_EQ(healed.W.data()[k], W.data()[k]);
  }
}

TEST(Refit, RefusesMomentsOfAnotherShapeAndValuesThatAreNotFinite) {
  ThreadPool pool(1);
  const MatrixF W(2, 3);
  EXPECT_THROW(
      refit(W.view(), {MatrixF(2, 2), MatrixF(2, 3), 0}, {}, pool, "l"), Error);
  EXPECT_THROW(
      refit(W.view(), {MatrixF(3, 3), MatrixF(2, 3), NAN}, {}, pool, "l"),
      Error);
}

}  // namespace
}  // namespace llmpress

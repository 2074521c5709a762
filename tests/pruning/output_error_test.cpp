#include "pruning/output_error.h"

#include <gtest/gtest.h>

#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

TEST(OutputError, UsesTheBestMomentThereIs) {
  // W - W' = (1, 2) and (0, 1).
  const MatrixF W({1, 2, 0, 1}, 2, 2), zero(2, 2);
  ThreadPool pool(2);
  InputStats stats;
  const OutputError identity =
      pruned_output_error(W.view(), zero.view(), &stats, pool);
  EXPECT_EQ(identity.basis, ErrorBasis::kIdentity);
  EXPECT_DOUBLE_EQ(identity.value, (1 + 4 + 1) / 2.0);
  stats.square_mean = {10, 3};
  const OutputError diagonal =
      pruned_output_error(W.view(), zero.view(), &stats, pool);
  EXPECT_EQ(diagonal.basis, ErrorBasis::kDiagonal);
  EXPECT_DOUBLE_EQ(diagonal.value, (10 + 12 + 3) / 2.0);
  stats.second_moment = MatrixF({10, -1, -1, 3}, 2, 2);
  const OutputError full =
      pruned_output_error(W.view(), zero.view(), &stats, pool);
  EXPECT_EQ(full.basis, ErrorBasis::kSecondMoment);
  EXPECT_DOUBLE_EQ(full.value, (10 - 4 + 12 + 3) / 2.0);
  EXPECT_EQ(pruned_output_error({}, {}, &stats, pool).value, 0);
}

TEST(OutputError, IsTheMeanSquareOfTheOutputsDifference) {
  constexpr std::size_t kOut = 600, kIn = 37, kTokens = 100;
  const MatrixF X = correlated_inputs(kTokens, kIn, 1);
  const MatrixF W = normal_matrix(kOut, kIn, 2),
                V = normal_matrix(kOut, kIn, 3);
  ThreadPool one(1), three(3);
  const InputStats stats = stats_of(X, one);
  double expected = 0;
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (std::size_t o = 0; o < kOut; ++o) {
      double y = 0;
      for (std::size_t i = 0; i < kIn; ++i) {
        y += static_cast<double>(W(o, i) - V(o, i)) *
             static_cast<double>(X(t, i));
      }
      expected += y * y / static_cast<double>(kTokens * kOut);
    }
  }
  const double found =
      pruned_output_error(W.view(), V.view(), &stats, one).value;
  EXPECT_NEAR(found, expected, 1e-4 * expected);
  EXPECT_EQ(found,
            pruned_output_error(W.view(), V.view(), &stats, three).value);
}

}  // namespace
}  // namespace llmpress

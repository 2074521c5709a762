#include "pruning/magnitude.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace llmpress {
namespace {

std::vector<float> pruned(const MatrixF& W, const PruneConfig& config) {
  ThreadPool pool(1);
  const PruneResult result = prune_magnitude({.W = W.view(),
                                              .config = &config,
                                              .sparsity = config.sparsity,
                                              .pool = &pool,
                                              .name = "test"});
  return {result.W.data().begin(), result.W.data().end()};
}

TEST(Magnitude, UsesOneThresholdForTheWholeWeight) {
  // Rank int(6 * 0.4) = 2 is |-3|: it and the two below it go, all of one row.
  EXPECT_EQ(pruned(MatrixF({1, 2, -3, 4, -5, 6}, 2, 3), {.sparsity = 0.4}),
            (std::vector<float>{0, 0, 0, 4, -5, 6}));
}

TEST(Magnitude, KeepsTheLargestOfEveryGroupOfAPattern) {
  EXPECT_EQ(
      pruned(MatrixF({1, -2, 3, -4, 8, 7, -6, 5}, 1, 8), {.keep = 2, .of = 4}),
      (std::vector<float>{0, 0, 3, -4, 8, 7, 0, 0}));
}

TEST(Magnitude, RemovesTheNumberAskedForWhenAllWeightsAreEqual) {
  const auto W =
      pruned(MatrixF(std::vector<float>(100, 2.0f), 10, 10), {.sparsity = 0.3});
  EXPECT_EQ(std::ranges::count(W, 0.0f), 31);
}

TEST(Magnitude, ReportsTheSquaresOfWhatWent) {
  const MatrixF W({3, 4, 10, 20}, 2, 2);
  const PruneConfig config{.sparsity = 0.25};
  ThreadPool pool(1);
  const PruneResult result = prune_magnitude(
      {.W = W.view(), .config = &config, .sparsity = 0.25, .pool = &pool});
  EXPECT_EQ(result.output_error.basis, ErrorBasis::kIdentity);
  EXPECT_DOUBLE_EQ(result.output_error.value, (9.0 + 16.0) / 2);
  EXPECT_EQ(result.sparsity, 0.5);
}

}  // namespace
}  // namespace llmpress

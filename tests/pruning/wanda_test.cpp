#include "pruning/wanda.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

PruneResult prune(const MatrixF& W, std::vector<float> square_mean,
                  const PruneConfig& config) {
  ThreadPool pool(2);
  InputStats stats;
  stats.square_mean = std::move(square_mean);
  return prune_wanda({.W = W.view(),
                      .stats = &stats,
                      .config = &config,
                      .sparsity = config.sparsity,
                      .pool = &pool,
                      .name = "test"});
}

std::vector<float> values(const PruneResult& result) {
  return {result.W.data().begin(), result.W.data().end()};
}

TEST(Wanda, MatchesAHandComputedCase) {
  // Norms 1, 3, 2, 1. Scores 4, 3, 6, 2 and 1, 6, 14, 9: half of each row.
  const PruneResult result = prune(MatrixF({4, 1, -3, 2, 1, 2, 7, -9}, 2, 4),
                                   {1, 9, 4, 1}, {.sparsity = 0.5});
  EXPECT_EQ(values(result), (std::vector<float>{4, 0, -3, 0, 0, 0, 7, -9}));
  // 1 * 9 + 4 * 1 and 1 * 1 + 4 * 9, over two rows.
  EXPECT_DOUBLE_EQ(result.output_error.value, (13.0 + 37.0) / 2);
  EXPECT_EQ(result.output_error.basis, ErrorBasis::kDiagonal);
}

TEST(Wanda, RemovesTheFloorOfTheShareFromEveryRow) {
  const MatrixF W = normal_matrix(9, 7, 1);
  const PruneResult result =
      prune(W, std::vector<float>(7, 1), {.sparsity = 0.5});
  for (std::size_t o = 0; o < 9; ++o) {
    EXPECT_EQ(std::ranges::count(result.mask.row(o), 0), 3);
  }
}

TEST(Wanda, ChoosesPatternsByInputNorms) {
  const PruneResult result =
      prune(MatrixF({1, 1, 1, 1}, 1, 4), {1, 4, 9, 2}, {.keep = 2, .of = 4});
  EXPECT_EQ(values(result), (std::vector<float>{0, 1, 1, 0}));
}

TEST(Wanda, RemovesWeightsOfSilentChannelsFirst) {
  const PruneResult result =
      prune(MatrixF({100, 1, 1, 1}, 1, 4), {0, 1, 1, 1}, {.sparsity = 0.25});
  EXPECT_EQ(values(result), (std::vector<float>{0, 1, 1, 1}));
}

TEST(Wanda, VariantTakesMoreFromRowsWithConcentratedScores) {
  constexpr std::size_t kOut = 40, kIn = 100;
  MatrixF W = normal_matrix(kOut, kIn, 2);
  for (std::size_t o = 0; o < kOut / 2; ++o) {
    for (float& w : W.row(o)) w = w * w * w;  // a few large, many small
  }
  const std::vector<float> ones(kIn, 1);
  const PruneResult variant =
      prune(W, ones, {.sparsity = 0.5, .wanda_variant = true});
  EXPECT_NEAR(variant.sparsity, 0.5, 0.01);
  const auto removed = [&](std::size_t begin) {
    std::ptrdiff_t n = 0;
    for (std::size_t o = begin; o < begin + kOut / 2; ++o) {
      n += std::ranges::count(variant.mask.row(o), 0);
    }
    return n;
  };
  EXPECT_GT(removed(0), removed(kOut / 2) + 100);
}

}  // namespace
}  // namespace llmpress

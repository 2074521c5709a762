#include "pruning/expert_importance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using Scores = std::vector<double>;

// Expert 0 has two tokens, 0.5 of (3, 4) and 0.25 of (0, 2); expert 1 one, all
// of (6, 8); expert 2 none.
ExpertImportances three_experts() {
  ExpertImportances importances(3);
  const std::vector<float> two{0.5f, 0.25f}, one{1.0f};
  importances.add(0, two, MatrixF({3, 4, 0, 2}, 2, 2).view());
  importances.add(1, one, MatrixF({6, 8}, 1, 2).view());
  return importances;
}

TEST(ExpertImportance, MassIsTheSumOfTheWeights) {
  EXPECT_EQ(three_experts().mass(), (Scores{0.75, 1, 0}));
  const Scores shares = three_experts().mass_shares();
  EXPECT_DOUBLE_EQ(shares[0], 0.75 / 1.75);
  EXPECT_DOUBLE_EQ(shares[1], 1 / 1.75);
  EXPECT_EQ(shares[2], 0);
}

TEST(ExpertImportance, ReapIsTheMeanWeightedNormOfTheOutput) {
  // (0.5 * 5 + 0.25 * 2) / 2 and 1 * 10.
  EXPECT_EQ(three_experts().reap(), (Scores{1.5, 10, 0}));
}

TEST(ExpertImportance, AddsUpOverBatches) {
  ExpertImportances importances(1);
  const std::vector<float> half{0.5f}, quarter{0.25f};
  importances.add(0, half, MatrixF({3, 4}, 1, 2).view());
  importances.add(0, quarter, MatrixF({0, 2}, 1, 2).view());
  EXPECT_EQ(importances.reap(), (Scores{1.5}));
}

TEST(ExpertImportance, CountsAWeightOnceThatIsInTheOutput) {
  ExpertImportances importances(1);
  const std::vector<float> half{0.5f};
  importances.add(0, half, MatrixF({3, 4}, 1, 2).view(), /*weighed=*/true);
  EXPECT_EQ(importances.reap(), (Scores{5}));
  EXPECT_EQ(importances.mass(), (Scores{0.5}));
}

TEST(ExpertImportance, HasSharesOfNothingWhereNothingWasRouted) {
  EXPECT_EQ(ExpertImportances(2).mass_shares(), (Scores{0, 0}));
}

TEST(ExpertImportance, KeepsAsManyOfEachGroup) {
  const Scores importance{5, 6, 7, 1, 0, 2};
  using Indices = std::vector<std::size_t>;
  EXPECT_EQ(keep_most_important_of_groups(importance, 4, 2),
            (Indices{1, 2, 3, 5}));
  EXPECT_EQ(keep_most_important_of_groups(importance, 4, 1),
            (Indices{0, 1, 2, 5}));
}

TEST(ExpertImportance, RefusesWhatIsNotFinite) {
  EXPECT_THROW(keep_most_important_of_groups(Scores{1, NAN}, 1, 1), Error);
}

}  // namespace
}  // namespace llmpress

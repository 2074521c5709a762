#include "pruning/importance.h"

#include <gtest/gtest.h>

#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using Scores = std::vector<double>;

TEST(Importance, OfWeightsIsTheNormOfAllThatGoes) {
  // Unit 0: row (3, 0) and column (0, 4); unit 1: row (5, 0), column (0, 12).
  const MatrixF up({3, 0, 5, 0}, 2, 2), down({0, 0, 4, 12}, 2, 2);
  const std::vector<UnitSlice> slices = {
      {.W = up.view()}, {.W = down.view(), .axis = UnitAxis::kColumns}};
  EXPECT_EQ(weight_importance(slices, 2), (Scores{5, 13}));
}

TEST(Importance, OfHeadsCountsRowsOfTheirWidth) {
  const MatrixF q({1, 1, 1, 1, 2, 2, 2, 2}, 4, 2);
  const std::vector<UnitSlice> slices = {{.W = q.view(), .width = 2}};
  EXPECT_EQ(weight_importance(slices, 2), (Scores{2, 4}));
}

TEST(Importance, OfGradientsIsTheFirstOrderChangeOfTheLoss) {
  const MatrixF W({1, 2, 3, 4}, 2, 2), G({1, -1, -2, 1}, 2, 2);
  const std::vector<UnitSlice> rows = {{.W = W.view(), .gradient = G.view()}};
  EXPECT_EQ(gradient_importance(rows, 2), (Scores{1, 2}));
  const std::vector<UnitSlice> columns = {
      {.W = W.view(), .axis = UnitAxis::kColumns, .gradient = G.view()}};
  EXPECT_EQ(gradient_importance(columns, 2), (Scores{5, 2}));
}

TEST(Importance, OfActivationsIsTheirMeanSize) {
  const std::vector<float> abs_mean = {1, 3, 0, 8};
  EXPECT_EQ(activation_importance(abs_mean), (Scores{1, 3, 0, 8}));
  EXPECT_EQ(activation_importance(abs_mean, 2), (Scores{2, 4}));
}

TEST(Importance, OfHeadActivationsIsTheMeanNormOverTokens) {
  const MatrixF X({3, 4, 0, 1, 0, 0, 0, 2}, 2, 4);
  EXPECT_EQ(activation_norm_importance(X.view(), 2), (Scores{2.5, 1.5}));
}

TEST(Importance, CombinesViewsWhateverTheirScale) {
  const std::vector<Scores> parts = {{1, 3}, {300, 100}, {0, 0}};
  const Scores combined = combined_importance(parts);
  EXPECT_NEAR(combined[0], 2.0 / 3, 1e-12);
  EXPECT_NEAR(combined[1], 2.0 / 3, 1e-12);
  EXPECT_TRUE(combined_importance({}).empty());
}

TEST(Importance, RefusesShapesThatDoNotHoldTheUnits) {
  const MatrixF W(4, 6);
  const std::vector<UnitSlice> slices = {{.W = W.view(), .width = 3}};
  EXPECT_THROW(weight_importance(slices, 1), Error);
  EXPECT_THROW(weight_importance(slices, 2), Error);
  const std::vector<UnitSlice> no_gradient = {{.W = W.view()}};
  EXPECT_THROW(gradient_importance(no_gradient, 4), Error);
  EXPECT_THROW(activation_importance(W.row(0), 4), Error);
  EXPECT_THROW(activation_norm_importance(W.view(), 4), Error);
  EXPECT_THROW(activation_norm_importance(W.view(), 0), Error);
  const std::vector<Scores> ragged = {{1}, {1, 2}};
  EXPECT_THROW(combined_importance(ragged), Error);
}

}  // namespace
}  // namespace llmpress

#include "pruning/block_influence.h"

#include <gtest/gtest.h>

#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

double influence(const MatrixF& before, const MatrixF& after) {
  ThreadPool pool(2);
  BlockInfluence influence;
  influence.add(before.view(), after.view(), pool);
  return influence.value();
}

TEST(BlockInfluence, IsOneMinusTheMeanCosine) {
  // Cosines 1, 0, -1 and 3/5.
  const MatrixF before({1, 0, 1, 0, 1, 0, 1, 0}, 4, 2);
  const MatrixF after({2, 0, 0, 1, -3, 0, 3, 4}, 4, 2);
  EXPECT_DOUBLE_EQ(influence(before, after), 1 - 0.6 / 4);
}

TEST(BlockInfluence, IsZeroForABlockThatOnlyScales) {
  const MatrixF X = normal_matrix(50, 17, 1);
  MatrixF Y = X;
  for (float& y : Y.data()) y *= 4;
  EXPECT_NEAR(influence(X, X), 0, 1e-12);
  EXPECT_NEAR(influence(X, Y), 0, 1e-12);
}

TEST(BlockInfluence, CountsTokensThatAreZeroOnOneSideOnly) {
  const MatrixF zero(1, 3), x({1, 2, 3}, 1, 3);
  EXPECT_EQ(influence(zero, zero), 0);
  EXPECT_EQ(influence(zero, x), 1);
  EXPECT_EQ(influence(x, zero), 1);
  EXPECT_EQ(BlockInfluence().value(), 0);
}

TEST(BlockInfluence, AccumulatesOverBatchesTheSameAtAnyThreadCount) {
  const MatrixF X = normal_matrix(90, 8, 2), Y = normal_matrix(90, 8, 3);
  ThreadPool one(1), three(3);
  BlockInfluence whole, parts;
  whole.add(X.view(), Y.view(), one);
  parts.add(X.view().rows_slice(0, 37), Y.view().rows_slice(0, 37), three);
  parts.add(X.view().rows_slice(37, 53), Y.view().rows_slice(37, 53), three);
  EXPECT_EQ(whole.tokens(), parts.tokens());
  EXPECT_NEAR(whole.value(), parts.value(), 1e-12);
  BlockInfluence again;
  again.add(X.view(), Y.view(), three);
  EXPECT_EQ(whole.value(), again.value());
}

}  // namespace
}  // namespace llmpress

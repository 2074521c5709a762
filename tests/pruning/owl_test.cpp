#include "pruning/owl.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "compress/core/error.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

TEST(Owl, CountsScoresAboveAMultipleOfTheMeanOfTheWholeBlock) {
  // Scores 1, 1, 1, 9 and, with norm 3, 3: mean 15 / 5 = 3.
  const MatrixF first({1, -1, 1, -9}, 2, 2), second({1}, 1, 1);
  const std::vector<float> ones = {1, 1}, nine = {9};
  const std::vector<OwlLinear> linears = {{first.view(), ones},
                                          {second.view(), nine}};
  ThreadPool pool(2);
  EXPECT_DOUBLE_EQ(outlier_ratio(linears, 0.9, pool), 2.0 / 5);
  EXPECT_DOUBLE_EQ(outlier_ratio(linears, 1, pool), 1.0 / 5);
  EXPECT_DOUBLE_EQ(outlier_ratio(linears, 3, pool), 0);
  EXPECT_DOUBLE_EQ(outlier_ratio({}, 2, pool), 0);
}

TEST(Owl, GivesTheSameRatioAtAnyThreadCount) {
  const MatrixF W = normal_matrix(123, 77, 1);
  const std::vector<float> squares(77, 0.5f);
  const std::vector<OwlLinear> linears = {{W.view(), squares}};
  ThreadPool one(1), three(3);
  EXPECT_EQ(outlier_ratio(linears, 2, one), outlier_ratio(linears, 2, three));
}

TEST(Owl, SparesBlocksWithManyOutliers) {
  // Densities .5 + {0, .08, .16} - .08.
  const std::vector<double> ratios = {0.01, 0.02, 0.03};
  const std::vector<double> sparsities = owl_sparsities(ratios, 0.5, 0.08);
  EXPECT_NEAR(sparsities[0], 0.58, 1e-12);
  EXPECT_NEAR(sparsities[1], 0.50, 1e-12);
  EXPECT_NEAR(sparsities[2], 0.42, 1e-12);
}

TEST(Owl, KeepsTheMeanAndTheBounds) {
  Rng rng(2);
  for (const std::size_t blocks : {1u, 2u, 7u, 80u}) {
    for (const double sparsity : {0.2, 0.5, 0.8}) {
      std::vector<double> ratios(blocks);
      for (double& r : ratios) r = rng.uniform();
      const std::vector<double> s = owl_sparsities(ratios, sparsity, 0.08);
      EXPECT_NEAR(std::accumulate(s.begin(), s.end(), 0.0) /
                      static_cast<double>(blocks),
                  sparsity, 1e-12);
      for (const double x : s) EXPECT_LE(std::abs(x - sparsity), 0.16);
    }
  }
}

TEST(Owl, IsUniformWhereBlocksDoNotDiffer) {
  const std::vector<double> ratios = {0.3, 0.3};
  EXPECT_EQ(owl_sparsities(ratios, 0.5, 0.08), (std::vector<double>{0.5, 0.5}));
  EXPECT_TRUE(owl_sparsities({}, 0.5, 0.08).empty());
}

TEST(Owl, RefusesSparsitiesThatWouldLeaveTheirRange) {
  const std::vector<double> ratios = {0.1, 0.2};
  EXPECT_THROW(owl_sparsities(ratios, 0.1, 0.08), Error);
  EXPECT_THROW(owl_sparsities(ratios, 0.9, 0.08), Error);
  EXPECT_THROW(owl_sparsities(ratios, 0.5, -0.1), Error);
  const std::vector<double> bad = {0.1, std::nan("")};
  EXPECT_THROW(owl_sparsities(bad, 0.5, 0.08), Error);
}

}  // namespace
}  // namespace llmpress

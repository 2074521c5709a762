#include "pruning/mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

using Mask = std::vector<std::uint8_t>;

Mask lowest(const std::vector<float>& scores, std::size_t remove) {
  Mask mask(scores.size(), 7);
  mask_lowest(scores, remove, mask);
  return mask;
}

Mask pattern(const std::vector<float>& scores, std::size_t keep,
             std::size_t of) {
  Mask mask(scores.size(), 7);
  mask_pattern(scores, keep, of, mask);
  return mask;
}

TEST(Mask, RemovesTheLowestScoresAndTheEarlierOfEqualOnes) {
  EXPECT_EQ(lowest({3, 1, 2, 0}, 2), (Mask{1, 0, 1, 0}));
  EXPECT_EQ(lowest({1, 1, 1, 1}, 3), (Mask{0, 0, 0, 1}));
  EXPECT_EQ(lowest({1, 2}, 0), (Mask{1, 1}));
  EXPECT_EQ(lowest({1, 2}, 2), (Mask{0, 0}));
  EXPECT_EQ(lowest({}, 0), Mask{});
  EXPECT_EQ(lowest({-0.0f, 0.0f, 1}, 1), (Mask{0, 1, 1}));
}

TEST(Mask, KeepsTheHighestOfEveryGroupAndTheLaterOfEqualOnes) {
  EXPECT_EQ(pattern({4, 3, 2, 1, 1, 2, 3, 4}, 2, 4),
            (Mask{1, 1, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(pattern({5, 5, 5, 5}, 2, 4), (Mask{0, 0, 1, 1}));
  EXPECT_EQ(pattern({0, 0, 0}, 1, 3), (Mask{0, 0, 1}));
}

TEST(Mask, KeepsAtMostTheSameNumberOfAShorterLastGroup) {
  EXPECT_EQ(pattern({1, 2, 3, 4, 9, 8, 7}, 2, 4), (Mask{0, 0, 1, 1, 1, 1, 0}));
  EXPECT_EQ(pattern({1, 2, 3, 4, 9}, 2, 4), (Mask{0, 0, 1, 1, 1}));
}

TEST(Mask, CountsUpToAndIncludingTheThresholdOfItsRank) {
  EXPECT_EQ(rank_threshold_count(10, 0.5), 6u);
  EXPECT_EQ(rank_threshold_count(10, 0), 0u);
  EXPECT_EQ(rank_threshold_count(1, 0.9), 1u);
  EXPECT_EQ(rank_threshold_count(0, 0.5), 0u);
}

TEST(Mask, ParallelSelectionEqualsSortingByScoreAndPosition) {
  Rng rng(1);
  ThreadPool one(1), three(3);
  for (const std::size_t cols : {1u, 7u, 1000u, 70001u}) {
    for (const int distinct : {1, 5, 1 << 20}) {
      constexpr std::size_t kRows = 3;
      MatrixF scores(kRows, cols);
      for (float& s : scores.data()) {
        s = static_cast<float>(
                rng.below(static_cast<std::uint64_t>(distinct))) *
            1e-3f;
      }
      std::vector<std::size_t> order(scores.size());
      std::iota(order.begin(), order.end(), 0u);
      std::ranges::stable_sort(order, {},
                               [&](std::size_t k) { return scores.data()[k]; });
      for (const double fraction : {0.0, 0.01, 0.5, 0.97, 1.0}) {
        const auto remove = static_cast<std::size_t>(
            fraction * static_cast<double>(scores.size()));
        Mask expected(scores.size(), 1);
        for (std::size_t k = 0; k < remove; ++k) expected[order[k]] = 0;
        for (ThreadPool* pool : {&one, &three}) {
          Matrix<std::uint8_t> mask(kRows, cols);
          mask_lowest(scores.view(), remove, mask.view(), *pool);
          ASSERT_TRUE(std::ranges::equal(mask.data(), expected));
        }
        Mask serial(scores.size());
        mask_lowest(scores.data(), remove, serial);
        ASSERT_EQ(serial, expected);
      }
    }
  }
}

TEST(Mask, OrdersDenormalAndInfiniteScores) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> scores = {inf, 1e-44f, 0, 3e38f, 1e-38f};
  EXPECT_EQ(lowest(scores, 3), (Mask{1, 0, 0, 1, 0}));
  ThreadPool pool(1);
  Matrix<std::uint8_t> mask(1, 5);
  mask_lowest(ConstMatrixView(scores, 1, 5), 3, mask.view(), pool);
  EXPECT_TRUE(std::ranges::equal(mask.data(), Mask{1, 0, 0, 1, 0}));
}

TEST(Mask, ReportsItsSparsity) {
  const Matrix<std::uint8_t> mask({1, 0, 0, 0}, 2, 2);
  EXPECT_EQ(sparsity_of(mask.view()), 0.75);
  EXPECT_EQ(sparsity_of({}), 0);
}

}  // namespace
}  // namespace llmpress

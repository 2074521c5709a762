#include "compress/core/input_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr StatsNeeds kAll = {.second_moment = true,
                             .channel_moments = true,
                             .sample_rows = true,
                             .reference_moment = true};

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF A(rows, cols);
  for (float& x : A.data()) x = static_cast<float>(rng.normal());
  return A;
}

std::vector<float> copy_of(const MatrixF& A) {
  return {A.data().begin(), A.data().end()};
}

TEST(InputStats, MatchHandComputedSumsOverTwoBatches) {
  ThreadPool pool(2);
  InputStatsCollector collector(2, kAll, 4, 2);
  const MatrixF first({1, -2, 3, 0}, 2, 2), second({-1, 2, 5, -4}, 2, 2);
  const MatrixF first_full({2, -2, 3, 1}, 2, 2),
      second_full({-1, 2, 5, -4}, 2, 2);
  collector.add(first.view(), pool, first_full.view());
  collector.add(second.view(), pool, second_full.view());
  const InputStats stats = collector.finish();

  EXPECT_EQ(stats.tokens, 4u);
  // sum x x^T = [1+9+1+25, -2+0-2-20; ., 4+0+4+16], over 4 tokens.
  EXPECT_EQ(copy_of(stats.second_moment), (std::vector<float>{9, -6, -6, 6}));
  // x_full - x is (1, 0), (0, 1), 0, 0: (1,0) (1,-2)^T + (0,1) (3,0)^T.
  EXPECT_EQ(copy_of(stats.reference_moment),
            (std::vector<float>{0.25f, -0.5f, 0.75f, 0}));
  EXPECT_EQ(stats.abs_max, (std::vector<float>{5, 4}));
  EXPECT_EQ(stats.abs_mean, (std::vector<float>{2.5f, 2}));
  EXPECT_EQ(stats.square_mean, (std::vector<float>{9, 6}));
  EXPECT_EQ(stats.min, (std::vector<float>{-1, -4}));
  EXPECT_EQ(stats.max, (std::vector<float>{5, 2}));
  // Every second row.
  EXPECT_EQ(copy_of(stats.sample_rows), (std::vector<float>{1, -2, -1, 2}));
}

TEST(InputStats, HoldOnlyWhatWasAskedFor) {
  ThreadPool pool(1);
  const MatrixF X = random_matrix(6, 3, 1);
  InputStatsCollector collector(3, {.channel_moments = true}, 6);
  collector.add(X.view(), pool);
  const InputStats stats = collector.finish();
  EXPECT_TRUE(stats.second_moment.empty());
  EXPECT_TRUE(stats.reference_moment.empty());
  EXPECT_TRUE(stats.sample_rows.empty());
  EXPECT_EQ(stats.abs_max.size(), 3u);
}

TEST(InputStats, AreTheSameAtAnyThreadCount) {
  const MatrixF X = random_matrix(413, 307, 2),
                full = random_matrix(413, 307, 3);
  const auto collect = [&](std::size_t threads) {
    ThreadPool pool(threads);
    InputStatsCollector collector(307, kAll, 413, 50);
    for (std::size_t t = 0; t < 413; t += 100) {
      const std::size_t rows = std::min<std::size_t>(100, 413 - t);
      collector.add(X.view().rows_slice(t, rows), pool,
                    full.view().rows_slice(t, rows));
    }
    return collector.finish();
  };
  const InputStats one = collect(1);
  for (const std::size_t threads : {2u, 5u}) {
    const InputStats many = collect(threads);
    EXPECT_EQ(copy_of(many.second_moment), copy_of(one.second_moment));
    EXPECT_EQ(copy_of(many.reference_moment), copy_of(one.reference_moment));
    EXPECT_EQ(many.abs_mean, one.abs_mean);
    EXPECT_EQ(many.square_mean, one.square_mean);
    EXPECT_EQ(many.abs_max, one.abs_max);
    EXPECT_EQ(copy_of(many.sample_rows), copy_of(one.sample_rows));
  }
}

TEST(InputStats, AreMeansOverTheTokensThatCameNotThoseAnnounced) {
  ThreadPool pool(1);
  const MatrixF X({1, 3}, 2, 1), full({2, 3}, 2, 1);
  for (const std::size_t announced : {0u, 1u, 2u, 64u}) {
    InputStatsCollector collector(1, kAll, announced, 8);
    collector.add(X.view(), pool, full.view());
    const InputStats stats = collector.finish();
    EXPECT_FLOAT_EQ(stats.second_moment(0, 0), 5) << announced;
    EXPECT_FLOAT_EQ(stats.reference_moment(0, 0), 0.5f) << announced;
    EXPECT_EQ(stats.abs_mean, std::vector<float>{2}) << announced;
  }
}

TEST(InputStats, KeepEvenlySpacedRowsUpToTheLimit) {
  ThreadPool pool(1);
  for (const std::size_t limit : {0u, 1u, 3u, 7u, 10u, 20u}) {
    MatrixF X(10, 1);
    for (std::size_t t = 0; t < 10; ++t) X(t, 0) = static_cast<float>(t);
    InputStatsCollector collector(1, {.sample_rows = true}, 10, limit);
    for (std::size_t t = 0; t < 10; ++t) {
      collector.add(X.view().rows_slice(t, 1), pool);
    }
    const std::vector<float> rows = copy_of(collector.finish().sample_rows);
    EXPECT_LE(rows.size(), limit);
    if (limit >= 10) {
      EXPECT_EQ(rows.size(), 10u);
    }
    if (limit == 3) {
      EXPECT_EQ(rows, (std::vector<float>{0, 4, 8}));
    }
    if (limit == 7) {
      EXPECT_EQ(rows, (std::vector<float>{0, 2, 4, 6, 8}));
    }
  }
}

TEST(InputStats, RefuseValuesThatAreNotFiniteAndNameThem) {
  ThreadPool pool(2);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    InputStatsCollector collector(5, {.second_moment = true}, 300);
    MatrixF X = random_matrix(150, 5, 4);
    collector.add(X.view(), pool);
    X(130, 3) = bad;
    X(140, 1) = bad;
    try {
      collector.add(X.view(), pool);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kNumeric);
      EXPECT_NE(std::string(e.what()).find("token 280, channel 3"),
                std::string::npos)
          << e.what();
    }
  }
}

TEST(InputStats, LargeFiniteInputsAreNotMistakenForInfinite) {
  ThreadPool pool(1);
  InputStatsCollector collector(2, {.channel_moments = true}, 2);
  const MatrixF X({3e38f, 3e38f, 3e38f, -3e38f}, 2, 2);
  collector.add(X.view(), pool);
  const InputStats stats = collector.finish();
  EXPECT_EQ(stats.abs_max, (std::vector<float>{3e38f, 3e38f}));
  EXPECT_EQ(stats.abs_mean, (std::vector<float>{3e38f, 3e38f}));
}

}  // namespace
}  // namespace llmpress

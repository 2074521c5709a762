#include "compress/core/input_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "tests/compress/core/thread_ranks.h"

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

// Batches as `ranks` ranks have them, in rounds; some are empty, as those of an
// expert may be.
InputStats collect_on(const Ranks& ranks, const MatrixF& X, const MatrixF& full,
                      std::span<const std::size_t> batches,
                      std::size_t announced) {
  ThreadPool pool(2);
  InputStatsCollector collector(X.cols(), kAll, announced, 50, ranks);
  std::size_t first = 0;
  for (std::size_t b = 0; b < batches.size(); b += ranks.size()) {
    std::size_t own_first = first, own_rows = 0;
    for (std::size_t r = 0; r < ranks.size() && b + r < batches.size(); ++r) {
      if (r == ranks.rank()) {
        own_first = first;
        own_rows = batches[b + r];
      }
      first += batches[b + r];
    }
    collector.add(X.view().rows_slice(own_first, own_rows), pool,
                  full.view().rows_slice(own_first, own_rows));
  }
  return collector.finish();
}

void expect_same(const InputStats& a, const InputStats& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(copy_of(a.second_moment), copy_of(b.second_moment));
  EXPECT_EQ(copy_of(a.reference_moment), copy_of(b.reference_moment));
  EXPECT_EQ(a.abs_max, b.abs_max);
  EXPECT_EQ(a.abs_mean, b.abs_mean);
  EXPECT_EQ(a.square_mean, b.square_mean);
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
  EXPECT_EQ(copy_of(a.sample_rows), copy_of(b.sample_rows));
}

TEST(InputStats, AreTheSameAtAnyNumberOfRanks) {
  // One panel of columns, several, the last one ragged; a batch so small that
  // its product is one tile.
  for (const std::size_t in : {1u, 5u, 307u, 512u, 513u, 1100u}) {
    const MatrixF X = random_matrix(300, in, 2),
                  full = random_matrix(300, in, 3);
    const std::vector<std::size_t> batches{90, 1, 0, 110, 64, 0, 0, 35};
    const InputStats one = collect_on({}, X, full, batches, 300);
    ASSERT_EQ(one.second_moment.rows(), in);
    for (const std::size_t size : {2u, 3u, 4u, 9u}) {
      if (in > 600 && size == 9) continue;  // slow
      run_on_ranks(size, [&](const Ranks& ranks) {
        expect_same(collect_on(ranks, X, full, batches, 300), one);
      });
    }
  }
}

TEST(InputStats, OfAnExpertWithoutTokensAreZeroOnAllRanks) {
  const MatrixF X(1, 3);
  const std::vector<std::size_t> none{0, 0, 0};
  const InputStats one = collect_on({}, X, X, none, 64);
  EXPECT_EQ(copy_of(one.second_moment), std::vector<float>(9));
  EXPECT_EQ(one.abs_max, std::vector<float>(3));
  run_on_ranks(2, [&](const Ranks& ranks) {
    expect_same(collect_on(ranks, X, X, none, 64), one);
  });
}

TEST(InputStats, SendHalfAMatrixAWayForASecondMoment) {
  const MatrixF X = random_matrix(64, 1024, 5);
  run_on_ranks(2, [&](const Ranks& ranks) {
    ThreadPool pool(1);
    InputStatsCollector collector(1024, {.second_moment = true}, 128, 0, ranks);
    collector.add(X.view(), pool);
    (void)collector.finish();
    // Two panels of 512 rows, up to the diagonal: [512, 512] and [512, 1024].
    // Each rank sends the one that it does not own, and in the end its own.
    const std::size_t panels = 512 * 512 * 4 + 512 * 1024 * 4;
    EXPECT_EQ(ranks.traffic().sent, panels + 16);  // and the counts of rows
    EXPECT_EQ(ranks.traffic().received, panels + 16);
  });
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

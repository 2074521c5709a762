#include "pruning/unit_selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/error.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

using Indices = std::vector<std::size_t>;

TEST(UnitSelection, CountsWhatStays) {
  EXPECT_EQ(kept_count(10, 0.5), 5u);
  EXPECT_EQ(kept_count(10, 0.3), 7u);   // 0.3 is a little less than it says
  EXPECT_EQ(kept_count(10, 0.29), 8u);  // never more removed than asked
  EXPECT_EQ(kept_count(10, 0), 10u);
  EXPECT_EQ(kept_count(10, 0.99), 1u);
  EXPECT_EQ(kept_count(1, 0.5), 1u);
  EXPECT_EQ(kept_count(0, 0.5), 0u);
  EXPECT_EQ(kept_count(100, 0.5, 32), 64u);
  EXPECT_EQ(kept_count(100, 0.01, 32), 100u);
  EXPECT_THROW(kept_count(10, 1), Error);
  EXPECT_THROW(kept_count(10, -0.1), Error);
  EXPECT_THROW(kept_count(10, std::nan("")), Error);
  EXPECT_THROW(kept_count(10, 0.5, 0), Error);
}

TEST(UnitSelection, KeepsTheMostImportantInOrder) {
  const std::vector<double> importance = {1, 5, 3, 5, 0};
  EXPECT_EQ(keep_most_important(importance, 3), (Indices{1, 2, 3}));
  EXPECT_EQ(keep_most_important(importance, 1), (Indices{1}));
  EXPECT_EQ(keep_most_important(importance, 0), Indices{});
  const std::vector<double> bad = {1, std::nan("")};
  EXPECT_THROW(keep_most_important(bad, 1), Error);
}

TEST(UnitSelection, ExpandsAndComplementsIndices) {
  EXPECT_EQ(expand_units(Indices{0, 2}, 3), (Indices{0, 1, 2, 6, 7, 8}));
  EXPECT_EQ(complement(Indices{0, 2}, 5), (Indices{1, 3, 4}));
  EXPECT_EQ(complement(Indices{}, 2), (Indices{0, 1}));
}

TEST(UnitSelection, SlicesRowsColumnsAndValues) {
  const MatrixF W({1, 2, 3, 4, 5, 6}, 2, 3);
  const MatrixF rows = select_rows(W.view(), Indices{1});
  EXPECT_TRUE(std::ranges::equal(rows.data(), std::vector<float>{4, 5, 6}));
  const MatrixF columns = select_columns(W.view(), Indices{0, 2});
  EXPECT_TRUE(
      std::ranges::equal(columns.data(), std::vector<float>{1, 3, 4, 6}));
  EXPECT_EQ(select_values(W.row(0), Indices{2, 0}), (std::vector<float>{3, 1}));
}

// Removing channels that are always zero must not change what a block computes.
TEST(UnitSelection, RemovingSilentFfnChannelsKeepsTheOutput) {
  constexpr std::size_t kWidth = 6, kChannels = 11;
  MatrixF up = normal_matrix(kChannels, kWidth, 1);
  const MatrixF down = normal_matrix(kWidth, kChannels, 2);
  std::ranges::fill(up.row(4), 0.0f);
  const MatrixF x = normal_matrix(1, kWidth, 3);
  const auto output = [&](const MatrixF& U, const MatrixF& D) {
    std::vector<float> y(kWidth);
    for (std::size_t c = 0; c < U.rows(); ++c) {
      float a = 0;
      for (std::size_t i = 0; i < kWidth; ++i) a += U(c, i) * x(0, i);
      for (std::size_t i = 0; i < kWidth; ++i) y[i] += D(i, c) * a;
    }
    return y;
  };
  const Indices kept = complement(Indices{4}, kChannels);
  EXPECT_EQ(output(up, down), output(select_rows(up.view(), kept),
                                     select_columns(down.view(), kept)));
}

}  // namespace
}  // namespace llmpress

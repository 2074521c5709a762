#include "compress/core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace llmpress {
namespace {

// Reference output of SplitMix64 for this seed, as published with the
// generator's test vectors.
TEST(Rng, StreamIsSplitMix64) {
  Rng rng(1234567);
  for (const std::uint64_t wanted :
       {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
        4593380528125082431u, 16408922859458223821u}) {
    EXPECT_EQ(rng.next(), wanted);
  }
}

TEST(Rng, BelowIsUniformOverEveryResult) {
  Rng rng(1);
  constexpr std::size_t kBound = 7;
  constexpr int kDraws = 70000;
  std::vector<int> count(kBound);
  for (int i = 0; i < kDraws; ++i) ++count[rng.below(kBound)];
  // Binomial with n = 70000, p = 1/7: sigma = 92.6; six of them either side.
  for (const int c : count) EXPECT_NEAR(c, 10000, 556);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(rng.below(1), 0u);
}

// 2^64 modulo 3 * 2^62 is 2^62: without rejection the lowest third of the
// results would come half of the time.
TEST(Rng, BelowHasNoModuloBias) {
  Rng rng(4);
  constexpr int kDraws = 30000;
  int lowest_third = 0;
  for (int i = 0; i < kDraws; ++i) {
    if (rng.below(std::uint64_t{3} << 62) < std::uint64_t{1} << 62) {
      ++lowest_third;
    }
  }
  // sigma = sqrt(n 2 / 9) = 81.6.
  EXPECT_NEAR(lowest_third, kDraws / 3, 6 * 82);
}

TEST(Rng, UniformFillsTheUnitIntervalWithoutItsEnd) {
  Rng rng(2);
  constexpr int kDraws = 100000;
  double sum = 0, low = 1, high = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.uniform();
    sum += u;
    low = std::min(low, u);
    high = std::max(high, u);
  }
  EXPECT_GE(low, 0.0);
  EXPECT_LT(high, 1.0);
  EXPECT_LT(low, 1e-3);
  EXPECT_GT(high, 1 - 1e-3);
  // sigma of the mean: 1 / sqrt(12 n) = 9.1e-4.
  EXPECT_NEAR(sum / kDraws, 0.5, 6 * 9.1e-4);
}

TEST(Rng, NormalHasTheMomentsAndTailsOfTheStandardNormal) {
  Rng rng(3);
  constexpr int kDraws = 200000;
  double sum = 0, square = 0, fourth = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
    beyond_two += std::abs(x) > 2 ? 1 : 0;
  }
  // Six standard deviations: 1, sqrt(2), sqrt(96) over sqrt(n).
  const double root = std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(sum / kDraws, 0, 6 / root);
  EXPECT_NEAR(square / kDraws, 1, 6 * std::sqrt(2.0) / root);
  EXPECT_NEAR(fourth / kDraws, 3, 6 * std::sqrt(96.0) / root);
  EXPECT_NEAR(beyond_two / static_cast<double>(kDraws), 0.0455,
              6 * 0.21 / root);
}

TEST(Rng, EqualSeedsGiveEqualStreamsAndOthersDiffer) {
  Rng a(9), b(9), c(10);
  const double first = a.normal();
  EXPECT_EQ(first, b.normal());
  EXPECT_NE(first, c.normal());
  EXPECT_EQ(a.normal(), b.normal());
  EXPECT_EQ(a.next(), b.next());
}

}  // namespace
}  // namespace llmpress

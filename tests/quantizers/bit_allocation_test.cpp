#include "quantizers/bit_allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

using Layers = std::vector<std::vector<BitOption>>;

// The least loss over all combinations, or infinity.
double brute_force(const Layers& layers, std::size_t budget) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> choice(layers.size());
  for (;;) {
    std::size_t bytes = 0;
    double loss = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      bytes += layers[l][choice[l]].bytes;
      loss += layers[l][choice[l]].loss;
    }
    if (bytes <= budget) best = std::min(best, loss);
    std::size_t l = 0;
    while (l < layers.size() && ++choice[l] == layers[l].size()) {
      choice[l++] = 0;
    }
    if (l == layers.size()) return best;
  }
}

void check_sums(const Layers& layers, const BitAllocation& found) {
  std::size_t bytes = 0;
  double loss = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    bytes += layers[l].at(found.choice[l]).bytes;
    loss += layers[l].at(found.choice[l]).loss;
  }
  EXPECT_EQ(bytes, found.bytes);
  EXPECT_NEAR(loss, found.loss, 1e-9 * (1 + std::abs(loss)));
}

TEST(BitAllocation, MatchesBruteForceOnRandomProblems) {
  Rng rng(4);
  for (int round = 0; round < 600; ++round) {
    const std::size_t largest = round % 2 == 0 ? 500 : 9;
    Layers layers(1 + rng.below(6));
    std::size_t least = 0, most = 0;
    for (auto& options : layers) {
      options.resize(1 + rng.below(4));
      std::size_t lo = SIZE_MAX, hi = 0;
      for (BitOption& option : options) {
        option = {.bytes = 1 + rng.below(largest), .loss = rng.uniform() - 0.2};
        lo = std::min(lo, option.bytes);
        hi = std::max(hi, option.bytes);
      }
      least += lo;
      most += hi;
    }
    const std::size_t budget = least + rng.below(most - least + 10);
    const auto found = allocate_bits(layers, budget);
    ASSERT_TRUE(found);
    check_sums(layers, *found);
    EXPECT_LE(found->bytes, budget);
    EXPECT_NEAR(found->loss, brute_force(layers, budget), 1e-12);
  }
}

TEST(BitAllocation, IsNearlyExactWhereBytesAreCoarsened) {
  Rng rng(5);
  for (int round = 0; round < 20; ++round) {
    Layers layers(8);
    std::size_t least = 0, most = 0;
    for (auto& options : layers) {
      // 3, 4, 8 bits of a layer of odd size, losses falling by about 4 a bit.
      const std::size_t weights = 1000003 + rng.below(30000000);
      const double hard = std::exp(3 * rng.normal());
      for (const std::size_t bits : {3u, 4u, 8u}) {
        options.push_back(
            {.bytes = weights * bits / 8 + 1,
             .loss = hard * std::pow(0.25, static_cast<double>(bits))});
      }
      least += options.front().bytes;
      most += options.back().bytes;
    }
    const std::size_t budget = least + (most - least) / 3;
    const auto found = allocate_bits(layers, budget);
    ASSERT_TRUE(found);
    check_sums(layers, *found);
    EXPECT_LE(found->bytes, budget);
    const double best = brute_force(layers, budget);
    EXPECT_GE(found->loss, best * (1 - 1e-12));
    EXPECT_LE(found->loss, best * 1.02);
  }
}

TEST(BitAllocation, SpendsWhatCoarseUnitsLeave) {
  // In units of 10 bytes 21841 count as 21850, so that only 14 of the 15 seem
  // to fit; the 16th layer keeps the common divisor at 1.
  Layers layers(15, {{.bytes = 1, .loss = 1}, {.bytes = 21842, .loss = 0}});
  layers.push_back({{.bytes = 1, .loss = 0.001}, {.bytes = 8, .loss = 0}});
  const auto found = allocate_bits(layers, 16 + 15 * 21841);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->loss, 0.001);
}

TEST(BitAllocation, GivesBitsToTheLayerThatNeedsThem) {
  const Layers layers = {{{10, 1.0}, {20, 0.9}}, {{10, 9.0}, {20, 1.0}}};
  const auto found = allocate_bits(layers, 30);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->choice, (std::vector<std::size_t>{0, 1}));
  EXPECT_EQ(allocate_bits(layers, 40)->choice,
            (std::vector<std::size_t>{1, 1}));
  EXPECT_EQ(allocate_bits(layers, 20)->choice,
            (std::vector<std::size_t>{0, 0}));
}

TEST(BitAllocation, SaysWhenTheBudgetIsTooSmall) {
  const Layers layers = {{{10, 1.0}}, {{11, 0.0}, {12, -1.0}}};
  EXPECT_FALSE(allocate_bits(layers, 20));
  EXPECT_TRUE(allocate_bits(layers, 21));
  EXPECT_EQ(allocate_bits({}, 0)->bytes, 0u);
}

TEST(BitAllocation, NeverPaysForAnOptionThatIsWorse) {
  const Layers layers = {{{10, 0.5}, {20, 0.7}, {15, 0.5}}};
  EXPECT_EQ(allocate_bits(layers, 100)->choice[0], 0u);
}

TEST(BitAllocation, TakesAnInfiniteLossOnlyIfItMust) {
  const double inf = std::numeric_limits<double>::infinity();
  const Layers layers = {{{10, inf}, {20, 1.0}}, {{10, inf}, {20, 1.0}}};
  EXPECT_EQ(allocate_bits(layers, 40)->loss, 2.0);
  EXPECT_EQ(allocate_bits(layers, 25)->choice,
            (std::vector<std::size_t>{0, 0}));
}

TEST(BitAllocation, RefusesLayersWithoutMeaning) {
  EXPECT_THROW(allocate_bits(Layers{{}}, 10), Error);
  EXPECT_THROW(allocate_bits(Layers{{{1, std::nan("")}}}, 10), Error);
}

}  // namespace
}  // namespace llmpress

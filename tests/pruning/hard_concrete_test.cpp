#include "pruning/hard_concrete.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

TEST(HardConcrete, OfAHalfIsTheMiddle) {
  // log u - log(1 - u) = 0 and log_alpha = 0: s = 1/2, z = 1/2; the slope is
  // 1/4 of 1.2 over 2/3.
  const GateValue z = sampled_gate(0, 0.5);
  EXPECT_NEAR(z.value, 0.5, 1e-12);
  EXPECT_NEAR(z.slope, 0.45, 1e-12);
  EXPECT_NEAR(settled_gate(0), 0.5, 1e-12);
  // sigmoid(2/3 log 11) = 11^(2/3) / (1 + 11^(2/3)).
  const double power = std::pow(11.0, 2.0 / 3);
  EXPECT_NEAR(open_probability(0).value, power / (1 + power), 1e-12);
}

TEST(HardConcrete, IsCutOffAtBothEndsWhereItHasNoSlope) {
  EXPECT_EQ(sampled_gate(8, 0.5).value, 1);
  EXPECT_EQ(sampled_gate(8, 0.5).slope, 0);
  EXPECT_EQ(sampled_gate(-8, 0.5).value, 0);
  EXPECT_EQ(sampled_gate(-8, 0.5).slope, 0);
  EXPECT_EQ(settled_gate(9), 1);
  EXPECT_EQ(settled_gate(-9), 0);
}

TEST(HardConcrete, HasTheSlopesOfItsDifferences) {
  constexpr double kStep = 1e-6;
  for (const double a : {-1.0, -0.2, 0.4, 1.1}) {
    EXPECT_NEAR(open_probability(a).slope,
                (open_probability(a + kStep).value -
                 open_probability(a - kStep).value) /
                    (2 * kStep),
                1e-7);
    for (const double u : {0.3, 0.5, 0.6}) {
      const GateValue z = sampled_gate(a, u);
      if (z.slope == 0) continue;
      EXPECT_NEAR(z.slope,
                  (sampled_gate(a + kStep, u).value -
                   sampled_gate(a - kStep, u).value) /
                      (2 * kStep),
                  1e-7);
    }
  }
}

TEST(HardConcrete, IsOpenAsOftenAsItsProbability) {
  Rng rng(1);
  for (const double a : {-2.0, 0.0, 1.5}) {
    constexpr int kDraws = 20000;
    int open = 0;
    for (int i = 0; i < kDraws; ++i) {
      if (sampled_gate(a, rng.uniform()).value > 0) ++open;
    }
    const double p = open_probability(a).value;
    // Four deviations.
    EXPECT_NEAR(static_cast<double>(open) / kDraws, p,
                4 * std::sqrt(p * (1 - p) / kDraws));
  }
}

}  // namespace
}  // namespace llmpress

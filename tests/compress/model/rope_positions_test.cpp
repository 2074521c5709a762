#include "compress/model/rope_positions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace llmpress {
namespace {

void expect_frequencies(RopeConfig rope, const std::vector<double>& expected) {
  rope.dim = 2 * expected.size();
  const auto found = rope_frequencies(rope);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t j = 0; j < expected.size(); ++j) {
    // Written with nine digits.
    EXPECT_NEAR(found[j], expected[j], 1e-8 * expected[j]) << "pair " << j;
  }
}

TEST(RopePositions, FallByEqualRatiosWithoutScaling) {
  expect_frequencies({.theta = 10000}, {1, 0.1, 0.01, 0.001});
  expect_frequencies(
      {.theta = 10000, .scaling = RopeScaling::kLinear, .factor = 4},
      {0.25, 0.025, 0.0025, 0.00025});
}

// The expected values below were computed apart from this code, from the
// formulas of the reference implementation.
TEST(RopePositions, SmoothLongWavesAsLlama3Does) {
  expect_frequencies(
      {.theta = 500000,
       .scaling = RopeScaling::kLlama3,
       .factor = 8,
       .low_freq_factor = 1,
       .high_freq_factor = 4,
       .original_max_positions = 8192},
      {1.0, 0.193922745, 0.0376060309, 0.00729266474, 0.000524846161,
       3.4281022e-05, 6.64786987e-06, 1.28917317e-06});
}

TEST(RopePositions, RampBetweenBothEndsAsYarnDoes) {
  RopeConfig rope{.theta = 10000,
                  .scaling = RopeScaling::kYarn,
                  .factor = 4,
                  .original_max_positions = 4096};
  expect_frequencies(rope, {1.0, 0.316227766, 0.1, 0.025693506, 0.00625,
                            0.00138349648, 0.00025, 7.90569415e-05});
  rope.truncate = false;
  expect_frequencies(rope, {1.0, 0.316227766, 0.1, 0.0286136088, 0.00655697152,
                            0.00128563203, 0.00025, 7.90569415e-05});
}

TEST(RopePositions, GrowTheirTablesAndKeepOldRows) {
  RopePositions positions({.dim = 4, .attention_factor = 2});
  const auto few = positions.at_least(3, 3);
  const auto many = positions.at_least(1000, 1000);
  ASSERT_GE(few->cos.rows(), 3u);
  ASSERT_GE(many->cos.rows(), 1000u);
  EXPECT_EQ(few->cos(2, 1), many->cos(2, 1));
  EXPECT_NEAR(many->sin(999, 1), 2 * std::sin(9.99), 1e-6);
  EXPECT_EQ(positions.at_least(5, 5), many);
}

TEST(RopePositions, DivideByTheLongFactorsBeyondTheOriginalContext) {
  const RopeConfig rope{.dim = 4,
                        .scaling = RopeScaling::kLongRope,
                        .original_max_positions = 32,
                        .short_factor = {1, 2},
                        .long_factor = {4, 8}};
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, false)[1], 0.01 / 2);
  EXPECT_DOUBLE_EQ(rope_frequencies(rope, true)[1], 0.01 / 8);
  RopePositions positions(rope);
  EXPECT_FLOAT_EQ(positions.at_least(5, 32)->cos(4, 0), std::cos(4.0f));
  EXPECT_FLOAT_EQ(positions.at_least(5, 33)->cos(4, 0), std::cos(1.0f));
}

}  // namespace
}  // namespace llmpress

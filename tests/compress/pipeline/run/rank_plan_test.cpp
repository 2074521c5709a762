#include "compress/pipeline/run/rank_plan.h"

#include <gtest/gtest.h>

namespace llmpress {
namespace {

using Deal = std::vector<std::size_t>;

TEST(RankPlan, GivesTheDearestToTheRankWithTheLeastWork) {
  const std::vector<double> costs{1, 5, 4, 2};
  // 5 to rank 0, 4 to rank 1, 2 to rank 1 (4 < 5), 1 to rank 0 (5 < 6).
  EXPECT_EQ(deal_out(costs, 2), (Deal{0, 0, 1, 1}));
  EXPECT_EQ(deal_out(costs, 1), (Deal{0, 0, 0, 0}));
  EXPECT_EQ(deal_out(costs, 4), (Deal{3, 0, 1, 2}));
}

// A Linear that alone reads a wide input is solved by all; experts, and Linears
// enough for all ranks whose inverse is cheap, are dealt out.
TEST(RankPlan, SolvesTogetherWhatOneRankWouldBeWaitedFor) {
  const double in = 5632;
  const SolveWork alone{.in = in,
                        .inverse = 2.0 / 3 * in * in * in,
                        .linears = {{2048 * in * in, 8}}};
  EXPECT_FALSE(solved_together(alone, 1));
  EXPECT_TRUE(solved_together(alone, 2));
  EXPECT_NEAR(slowest_share(alone, 2),
              (alone.inverse + alone.linears[0].solve) / 2, 1);
  // 8 pieces of rows on 3 ranks: 3, 3 and 2.
  EXPECT_NEAR(slowest_share(alone, 3),
              alone.inverse / 3 + alone.linears[0].solve * 3 / 8, 1);

  SolveWork whole = alone;
  whole.linears[0].pieces = 1;  // its rows need one another
  EXPECT_TRUE(solved_together(whole, 2));
  EXPECT_NEAR(slowest_share(whole, 2),
              whole.inverse / 2 + whole.linears[0].solve, 1);

  const SolveWork pair{
      .in = 256, .inverse = 1, .linears = {{1e9, 1}, {1e9, 1}}};
  EXPECT_FALSE(solved_together(pair, 2));
  EXPECT_NEAR(slowest_share(pair, 2), 1e9 + 1, 1);

  SolveWork experts = alone;
  experts.groups = 8;
  EXPECT_FALSE(solved_together(experts, 2));
  EXPECT_NEAR(slowest_share(experts, 3),
              3 * (alone.inverse + alone.linears[0].solve), 1);
  EXPECT_FALSE(solved_together({}, 2));
}

TEST(RankPlan, KeepsTheOrderOfEqualCosts) {
  const std::vector<double> costs(5, 3.0);
  EXPECT_EQ(deal_out(costs, 3), (Deal{0, 1, 2, 0, 1}));
  EXPECT_EQ(deal_out({}, 3), Deal{});
}

}  // namespace
}  // namespace llmpress

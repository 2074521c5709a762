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

TEST(RankPlan, KeepsTheOrderOfEqualCosts) {
  const std::vector<double> costs(5, 3.0);
  EXPECT_EQ(deal_out(costs, 3), (Deal{0, 1, 2, 0, 1}));
  EXPECT_EQ(deal_out({}, 3), Deal{});
}

}  // namespace
}  // namespace llmpress

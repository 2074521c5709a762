#include "pruning/expert_removal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

// Each token goes to the first of `order` [tokens, experts] that is there, with
// weight 1; experts give numbers, `outputs` [tokens, experts].
MixtureOutputs top_one(const MatrixF& outputs,
                       const std::vector<std::vector<std::size_t>>& order) {
  const std::size_t experts = outputs.cols();
  MixtureOutputs mixture{
      .experts = experts,
      .products = MatrixF(outputs.rows(), experts * experts)};
  for (std::size_t t = 0; t < outputs.rows(); ++t) {
    for (std::size_t a = 0; a < experts; ++a) {
      for (std::size_t b = 0; b < experts; ++b) {
        mixture.products(t, a * experts + b) = outputs(t, a) * outputs(t, b);
      }
    }
  }
  mixture.route = [order, experts](const std::vector<bool>& stays) {
    MatrixF weights(order.size(), experts);
    for (std::size_t t = 0; t < order.size(); ++t) {
      weights(t, *std::ranges::find_if(
                     order[t], [&](std::size_t e) { return stays[e]; })) = 1;
    }
    return weights;
  };
  return mixture;
}

// Token 0 goes to expert 0, or else to 1, which gives the same; token 1 to
// expert 2, or else to 1, which gives 3 of 4.
MixtureOutputs with_a_stand_in() {
  return top_one(MatrixF({2, 2, 0, 0, 3, 4}, 2, 3), {{0, 1, 2}, {2, 1, 0}});
}

TEST(ExpertRemoval, ErrorIsThatOfTheMixtureWithWhoIsLeft) {
  ThreadPool pool(2);
  const MixtureOutputs outputs = with_a_stand_in();
  const MixtureError error(outputs, pool);
  EXPECT_EQ(error.of({true, true, true}), 0);
  EXPECT_EQ(error.of({false, true, true}), 0);
  EXPECT_EQ(error.of({true, false, true}), 0);
  EXPECT_DOUBLE_EQ(error.of({true, true, false}), 1.0 / 20);
  EXPECT_DOUBLE_EQ(error.of({false, false, true}), 4.0 / 20);
  EXPECT_DOUBLE_EQ(error.of({true, false, false}), 16.0 / 20);
}

// Ranked each by itself, 0 and 1 would go, and cost 4 / 20.
TEST(ExpertRemoval, SeesWhoStandsInForWhom) {
  ThreadPool pool(2);
  const auto removed = remove_by_output_error(with_a_stand_in(), 1, 1, pool);
  ASSERT_EQ(removed.size(), 2u);
  EXPECT_EQ(removed[0].unit, 0u);
  EXPECT_EQ(removed[0].rise, 0);
  EXPECT_EQ(removed[1].unit, 2u);
  EXPECT_DOUBLE_EQ(removed[1].rise, 1.0 / 20);
}

TEST(ExpertRemoval, TakesAsManyOfEachGroup) {
  ThreadPool pool(2);
  // Expert e gives e to the token that goes to it; without it, the next.
  MatrixF outputs(4, 4);
  std::vector<std::vector<std::size_t>> order;
  for (std::size_t t = 0; t < 4; ++t) {
    order.emplace_back();
    for (std::size_t k = 0; k < 4; ++k) {
      order.back().push_back((t + k) % 4);
      outputs(t, k) = k == t ? static_cast<float>(k + 1) : 0.0f;
    }
  }
  std::set<std::size_t> gone;
  for (const RemovedUnit& r :
       remove_by_output_error(top_one(outputs, order), 2, 2, pool)) {
    gone.insert(r.unit);
  }
  EXPECT_EQ(gone, (std::set<std::size_t>{0, 2}));
}

// More go than there are rounds.
TEST(ExpertRemoval, LeavesTheNumberThatWasAskedFor) {
  ThreadPool pool(2);
  constexpr std::size_t kExperts = 150;
  MatrixF outputs(1, kExperts);
  std::vector<std::size_t> order;
  for (std::size_t e = 0; e < kExperts; ++e) {
    outputs(0, e) = static_cast<float>(e + 1);
    order.push_back(e);
  }
  const auto removed =
      remove_by_output_error(top_one(outputs, {order}), 7, 1, pool);
  std::set<std::size_t> gone;
  for (const RemovedUnit& r : removed) gone.insert(r.unit);
  EXPECT_EQ(gone.size(), kExperts - 7);
  EXPECT_FALSE(gone.contains(0));  // the only one that the token goes to
}

TEST(ExpertRemoval, HasNoErrorWhereNothingComesOut) {
  ThreadPool pool(1);
  const MixtureOutputs outputs = top_one(MatrixF(1, 2), {{0, 1}});
  EXPECT_EQ(MixtureError(outputs, pool).of({false, true}), 0);
}

TEST(ExpertRemoval, RefusesWhatIsNotFinite) {
  ThreadPool pool(1);
  const MixtureOutputs outputs = top_one(MatrixF({NAN, 1}, 1, 2), {{0, 1}});
  EXPECT_THROW(remove_by_output_error(outputs, 1, 1, pool), Error);
}

}  // namespace
}  // namespace llmpress

#include "pruning/alike_groups.h"

#include <gtest/gtest.h>

#include <vector>

namespace llmpress {
namespace {

using Order = std::vector<std::size_t>;

// 1 between items of one kind, 0 between others.
MatrixF by_kind(const std::vector<int>& kinds) {
  MatrixF similarity(kinds.size(), kinds.size());
  for (std::size_t a = 0; a < kinds.size(); ++a) {
    for (std::size_t b = 0; b < kinds.size(); ++b) {
      similarity(a, b) = kinds[a] == kinds[b] ? 1.0f : 0.0f;
    }
  }
  return similarity;
}

TEST(AlikeGroups, LeavesNeighboursTogetherWhereNothingIsGained) {
  EXPECT_EQ(group_alike(MatrixF(6, 6), 3), (Order{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(group_alike(by_kind({1, 1, 2, 2}), 2), (Order{0, 1, 2, 3}));
}

TEST(AlikeGroups, BringsTogetherWhatIsAlike) {
  EXPECT_EQ(group_alike(by_kind({1, 2, 1, 2}), 2), (Order{0, 2, 1, 3}));
  const Order order = group_alike(by_kind({1, 2, 3, 3, 1, 2, 2, 3, 1}), 3);
  const std::vector<int> kinds = {1, 2, 3, 3, 1, 2, 2, 3, 1};
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(kinds[order[i]], kinds[order[i / 3 * 3]]);
  }
}

TEST(AlikeGroups, HandlesGroupsOfOneAndOfAll) {
  EXPECT_EQ(group_alike(by_kind({1, 2, 1}), 1), (Order{0, 1, 2}));
  EXPECT_EQ(group_alike(by_kind({1, 2, 1}), 3), (Order{0, 1, 2}));
}

}  // namespace
}  // namespace llmpress

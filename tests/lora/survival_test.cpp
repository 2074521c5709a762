#include "lora/survival.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"

namespace llmpress {
namespace {

Survival survival(std::vector<float> change, std::vector<float> base,
                  std::vector<float> merged) {
  const auto row = [](std::vector<float>& v) {
    return ConstMatrixView(v, 1, v.size());
  };
  return measure_survival(row(change), row(base), row(merged));
}

TEST(Survival, IsSizeAndDirectionOfWhatIsLeft) {
  const Survival s = survival({3, 4}, {1, 1}, {4, 1});
  EXPECT_DOUBLE_EQ(s.change_norm, 5);
  EXPECT_DOUBLE_EQ(s.surviving_norm, 3);
  EXPECT_DOUBLE_EQ(s.kept, 0.6);
  EXPECT_DOUBLE_EQ(s.cosine, 0.6);
}

TEST(Survival, SaysThatAGridErasedASmallChange) {
  const Survival s = survival({0.1f, -0.2f}, {1, 2}, {1, 2});
  EXPECT_EQ(s.kept, 0);
  EXPECT_EQ(s.cosine, 0);
}

TEST(Survival, TurnsRoundWithTheSign) {
  EXPECT_DOUBLE_EQ(survival({1, 0}, {0, 0}, {-2, 0}).cosine, -1);
}

TEST(Survival, OfNothingIsWhole) {
  const Survival none = survival({0, 0}, {1, 2}, {1, 2});
  EXPECT_EQ(none.kept, 1);
  EXPECT_EQ(none.cosine, 1);
  const Survival noise = survival({0, 0}, {1, 2}, {1, 3});
  EXPECT_TRUE(std::isinf(noise.kept));
  EXPECT_EQ(noise.cosine, 0);
}

TEST(Survival, RefusesOtherShapes) {
  EXPECT_THROW(survival({1, 2}, {1, 2}, {1}), Error);
}

}  // namespace
}  // namespace llmpress

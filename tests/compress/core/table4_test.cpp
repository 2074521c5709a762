#include "compress/core/table4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace llmpress {
namespace {

// 64 numbers, exact in float, and the codes that bitsandbytes gives them in one
// block (absmax 1.5625), first number in the high nibble.
float sample(std::size_t i) {
  return static_cast<float>(static_cast<int>((i * 37 + 11) % 101) - 50) / 32;
}
constexpr float kAbsmax = 1.5625f;
constexpr char kNf4Codes[] =
    "17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e1";
constexpr char kFp4Codes[] =
    "a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a";

void expect_codes_are_nearest(Table4Kind kind, const std::string& codes) {
  const auto table = table4_values(kind);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float x = sample(i) / kAbsmax;
    const auto code =
        static_cast<std::size_t>(std::stoi(codes.substr(i, 1), nullptr, 16));
    for (const float other : table) {
      EXPECT_LE(std::abs(table[code] - x), std::abs(other - x)) << i;
    }
  }
}

TEST(Table4, BitsandbytesCodesAreTheNearestValuesOfTheTables) {
  expect_codes_are_nearest(Table4Kind::kNf4, kNf4Codes);
  expect_codes_are_nearest(Table4Kind::kFp4, kFp4Codes);
}

TEST(Table4, Nf4AscendsFromMinusOneThroughZeroToOne) {
  const auto nf4 = table4_values(Table4Kind::kNf4);
  EXPECT_TRUE(std::is_sorted(nf4.begin(), nf4.end()));
  EXPECT_EQ(nf4.front(), -1.0f);
  EXPECT_EQ(nf4[7], 0.0f);
  EXPECT_EQ(nf4.back(), 1.0f);
}

TEST(Table4, Fp4IsSignExponentMantissaInTwelfths) {
  const auto fp4 = table4_values(Table4Kind::kFp4);
  EXPECT_EQ(fp4[3], 1.0f);
  EXPECT_FLOAT_EQ(fp4[1], 0.0625f / 12);
  EXPECT_FLOAT_EQ(fp4[2], 2.0f / 3);
  for (std::size_t c = 0; c < 8; ++c) EXPECT_EQ(fp4[c + 8], -fp4[c]);
}

// Smallest and largest decades by hand: 1e-6 holds the mean .55 of [.1, 1];
// 1e-5 the means .325 and .775 of its halves; 1 holds 64 means, the last of
// [.9859375, 1].
TEST(Table4, NestedMapHoldsTheMeansOfEveryDecade) {
  const auto map = nested_absmax_map();
  ASSERT_EQ(map.size(), 256u);
  EXPECT_TRUE(std::is_sorted(map.begin(), map.end()));
  EXPECT_EQ(std::adjacent_find(map.begin(), map.end()), map.end());
  EXPECT_EQ(map[127], 0.0f);
  EXPECT_FLOAT_EQ(map[128], 5.5e-7f);
  EXPECT_FLOAT_EQ(map[129], 3.25e-6f);
  EXPECT_FLOAT_EQ(map[130], 7.75e-6f);
  EXPECT_FLOAT_EQ(map[254], 0.99296875f);
  EXPECT_EQ(map[255], 1.0f);
  for (std::size_t i = 0; i < 127; ++i) EXPECT_EQ(map[i], -map[254 - i]);
}

}  // namespace
}  // namespace llmpress

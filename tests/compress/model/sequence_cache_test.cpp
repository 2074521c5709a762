#include "compress/model/sequence_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr KvType kAll[] = {KvType::kF32, KvType::kInt8, KvType::kFp8,
                           KvType::kInt4};

std::vector<float> through(KvType type, const std::vector<float>& x) {
  std::vector<std::byte> stored(kv_bytes({type}, x.size()));
  std::vector<float> back(x.size());
  encode_kv({type}, x, stored);
  decode_kv({type}, stored, back);
  return back;
}

MatrixF random_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF X(rows, cols);
  for (float& x : X.data()) x = static_cast<float>(rng.normal());
  return X;
}

TEST(KvStore, MatchesHandComputedInt4Bytes) {
  // min -1, scale 15 / 15: codes 0, 15, 3 (2.4 + 1 rounds down).
  const std::vector<float> x = {-1, 14, 2.4f};
  std::vector<std::byte> stored(kv_bytes({KvType::kInt4}, 3));
  ASSERT_EQ(stored.size(), 10u);
  encode_kv({KvType::kInt4}, x, stored);
  float scale = 0, min = 0;
  std::memcpy(&scale, stored.data(), 4);
  std::memcpy(&min, stored.data() + 4, 4);
  EXPECT_EQ(scale, 1);
  EXPECT_EQ(min, -1);
  EXPECT_EQ(stored[8], std::byte{0xf0});
  EXPECT_EQ(stored[9], std::byte{0x03});
  EXPECT_EQ(through(KvType::kInt4, x), (std::vector<float>{-1, 14, 2}));
}

TEST(KvStore, KeepsFp8ExactWherePowersOfTwoAllow) {
  // scale 448 / 448.
  const std::vector<float> x = {448, -1.75f, 0, 0.015625f};
  EXPECT_EQ(through(KvType::kFp8, x), x);
}

TEST(KvStore, ErrsByAtMostHalfAStep) {
  const MatrixF X = random_rows(50, 33, 1);
  for (std::size_t r = 0; r < X.rows(); ++r) {
    const std::vector<float> x(X.row(r).begin(), X.row(r).end());
    const auto [lo, hi] = std::minmax_element(x.begin(), x.end());
    const float max = std::max(-*lo, *hi);
    for (const KvType type : kAll) {
      const auto back = through(type, x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        // 1e-6 of the range for float arithmetic on top of half a step.
        float bound = 0;
        if (type == KvType::kInt8) bound = (*hi - *lo) * (0.5f / 255 + 1e-6f);
        if (type == KvType::kInt4) bound = (*hi - *lo) * (0.5f / 15 + 1e-6f);
        if (type == KvType::kFp8) {
          bound = std::max(std::abs(x[i]) / 16, max / 448 / 1024) * 1.0001f;
        }
        EXPECT_LE(std::abs(back[i] - x[i]), bound);
      }
    }
  }
}

TEST(KvStore, KeepsConstantVectorsAndDecodesWhatIsNotFiniteAsNan) {
  for (const KvType type : {KvType::kInt8, KvType::kInt4}) {
    EXPECT_EQ(through(type, {0.3f, 0.3f}), (std::vector<float>{0.3f, 0.3f}));
  }
  for (const KvType type : {KvType::kInt8, KvType::kInt4, KvType::kFp8}) {
    EXPECT_EQ(through(type, {0, 0}), (std::vector<float>{0, 0}));
    EXPECT_EQ(through(type, {1e-45f, 0})[1], 0) << "denormal";
    for (const float bad : {INFINITY, -INFINITY, std::nanf("")}) {
      EXPECT_TRUE(std::isnan(through(type, {1, bad})[0]));
    }
  }
}

TEST(KvStore, RoundsEveryHeadByItself) {
  MatrixF X(1, 4);
  X(0, 0) = 1000;
  X(0, 2) = 0.5f;
  round_kv_in_place({KvType::kInt4}, 2, X.view());
  EXPECT_EQ(X(0, 2), 0.5f);  // 1000 belongs to another head
}

TEST(KvCache, ReadsBackWhatTheStoreKeeps) {
  for (const KvType type : kAll) {
    KvCache cache({{{3, 5, 5}}, {{3, 5, 5}}}, 7, {type});
    EXPECT_EQ(cache.bytes(), 2 * 2 * 7 * 3 * kv_bytes({type}, 5));
    MatrixF K = random_rows(6, 15, 2), V = random_rows(6, 15, 3);
    for (const std::size_t layer : {0u, 1u}) {
      cache.append({layer, 0}, K.view().rows_slice(0, 4),
                   V.view().rows_slice(0, 4));
    }
    EXPECT_EQ(cache.tokens(), 0u);
    cache.advance(4);
    cache.append({1, 0}, K.view().rows_slice(4, 2), V.view().rows_slice(4, 2));
    cache.advance(2);
    EXPECT_EQ(cache.tokens(), 6u);

    MatrixF keys(5, 15), values(5, 15);
    cache.read({1, 0}, 1, keys.view(), values.view());
    round_kv_in_place({type}, 5, K.view());
    round_kv_in_place({type}, 5, V.view());
    for (std::size_t r = 0; r < 5; ++r) {
      EXPECT_TRUE(std::ranges::equal(keys.row(r), K.row(r + 1)));
      EXPECT_TRUE(std::ranges::equal(values.row(r), V.row(r + 1)));
    }
  }
}

TEST(KvCache, ForgetsWhatIsTruncatedAndRefusesMoreThanItsCapacity) {
  KvCache cache({{{1, 2, 2}}}, 3);
  const MatrixF two = random_rows(2, 2, 4);
  cache.append({0, 0}, two.view(), two.view());
  cache.advance(2);
  EXPECT_THROW(cache.append({0, 0}, two.view(), two.view()), Error);
  cache.truncate(1);
  EXPECT_EQ(cache.tokens(), 1u);
  cache.append({0, 0}, two.view(), two.view());
  MatrixF keys(3, 2), values(3, 2);
  cache.read({0, 0}, 0, keys.view(), values.view());
  EXPECT_EQ(keys(1, 0), two(0, 0));
}

}  // namespace
}  // namespace llmpress

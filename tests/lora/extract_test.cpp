#include "lora/extract.h"

#include <gtest/gtest.h>

#include <limits>

#include "compress/core/error.h"
#include "lora/lora_delta.h"
#include "tests/lora/random_lora.h"

namespace llmpress {
namespace {

TEST(Extract, GivesTheTunedWeightBackAtFullRank) {
  Rng rng(11);
  ThreadPool pool(2);
  const MatrixF base = random_matrix(37, 23, rng);
  const MatrixF tuned = random_matrix(37, 23, rng);
  const ExtractedLora lora =
      extract_lora(base.view(), tuned.view(), {.rank = 100});
  ASSERT_EQ(lora.A.rows(), 23u);
  EXPECT_NEAR(lora.captured_energy, 1, 1e-6);
  MatrixF merged = base;
  merge_in_place({.A = lora.A, .B = lora.B}, 1, merged.view(), pool);
  for (std::size_t o = 0; o < 37; ++o) {
    for (std::size_t i = 0; i < 23; ++i) {
      double magnitude = std::fabs(base(o, i)) + std::fabs(tuned(o, i));
      for (std::size_t k = 0; k < 23; ++k) {
        magnitude += std::fabs(lora.B(o, k) * lora.A(k, i));
      }
      // r roundings of the product, 6 of each term's factors, 2 of the sums.
      EXPECT_NEAR(merged(o, i), tuned(o, i), (23 + 8) * kUnit * magnitude);
    }
  }
}

// Integers: the product is exact, so its rank is 3 and not a rounding's.
TEST(Extract, FindsTheRankOfAnAdapter) {
  Rng rng(12);
  MatrixF D(40, 30);
  for (int k = 0; k < 3; ++k) {
    std::vector<float> b(40), a(30);
    for (float& v : b) v = static_cast<float>(rng.below(9)) - 4;
    for (float& v : a) v = static_cast<float>(rng.below(9)) - 4;
    for (std::size_t o = 0; o < 40; ++o) {
      for (std::size_t i = 0; i < 30; ++i) D(o, i) += b[o] * a[i];
    }
  }
  const ExtractedLora lora =
      extract_lora(MatrixF(40, 30).view(), D.view(), {.rank = 10});
  EXPECT_EQ(lora.A.rows(), 3u);
  EXPECT_NEAR(lora.captured_energy, 1, 1e-6);
}

// Singular values 4, 2, 1: energies 16, 20, 21 of 21.
TEST(Extract, StopsAtTheEnergyOrTheRank) {
  const MatrixF base(3, 3);
  const MatrixF tuned({0, -4, 0, 2, 0, 0, 0, 0, 1}, 3, 3);
  const auto extract = [&](std::size_t rank, double energy) {
    return extract_lora(base.view(), tuned.view(),
                        {.rank = rank, .energy = energy});
  };
  EXPECT_EQ(extract(3, 0.7).A.rows(), 1u);
  EXPECT_EQ(extract(3, 0.9).A.rows(), 2u);
  EXPECT_EQ(extract(3, 0.96).A.rows(), 3u);
  EXPECT_EQ(extract(1, 0.96).A.rows(), 1u);
  const ExtractedLora two = extract(2, 1);
  EXPECT_NEAR(two.captured_energy, 20.0 / 21, 1e-6);
  EXPECT_NEAR(two.change_norm, std::sqrt(21.0), 1e-6);
  // Singular values are shared evenly: |b_k|^2 = |a_k|^2 = s_k.
  EXPECT_NEAR(std::fabs(two.A(0, 1)), 2, 1e-6);
  EXPECT_NEAR(std::fabs(two.B(0, 0)), 2, 1e-6);
  EXPECT_NEAR(two.B(0, 0) * two.A(0, 1), -4, 1e-5);
}

TEST(Extract, SaysNothingOfEqualWeights) {
  Rng rng(13);
  const MatrixF W = random_matrix(5, 4, rng);
  const ExtractedLora lora = extract_lora(W.view(), W.view(), {});
  EXPECT_TRUE(lora.A.empty());
  EXPECT_EQ(lora.change_norm, 0);
  EXPECT_EQ(lora.captured_energy, 1);
}

TEST(Extract, RefusesWhatHasNoAnswer) {
  MatrixF W(2, 2);
  const MatrixF other(2, 3);
  EXPECT_THROW(extract_lora(W.view(), other.view(), {}), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.rank = 0}), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.energy = 1.1}), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.energy = 0}), Error);
  const MatrixF zero = W;
  W(1, 0) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(extract_lora(zero.view(), W.view(), {}), Error);
}

}  // namespace
}  // namespace llmpress

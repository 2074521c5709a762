#include "lora/extract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/linalg.h"
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
      extract_lora(base.view(), tuned.view(), {.rank = 100}, pool);
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
  ThreadPool pool(2);
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
      extract_lora(MatrixF(40, 30).view(), D.view(), {.rank = 10}, pool);
  EXPECT_EQ(lora.A.rows(), 3u);
  EXPECT_NEAR(lora.captured_energy, 1, 1e-6);
}

// Singular values 4, 2, 1: energies 16, 20, 21 of 21.
TEST(Extract, StopsAtTheEnergyOrTheRank) {
  ThreadPool pool(1);
  const MatrixF base(3, 3);
  const MatrixF tuned({0, -4, 0, 2, 0, 0, 0, 0, 1}, 3, 3);
  const auto extract = [&](std::size_t rank, double energy) {
    return extract_lora(base.view(), tuned.view(),
                        {.rank = rank, .energy = energy}, pool);
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
  ThreadPool pool(1);
  const MatrixF W = random_matrix(5, 4, rng);
  const ExtractedLora lora = extract_lora(W.view(), W.view(), {}, pool);
  EXPECT_TRUE(lora.A.empty());
  EXPECT_EQ(lora.change_norm, 0);
  EXPECT_EQ(lora.captured_energy, 1);
}

TEST(Extract, RefusesWhatHasNoAnswer) {
  ThreadPool pool(1);
  MatrixF W(2, 2);
  const MatrixF other(2, 3);
  EXPECT_THROW(extract_lora(W.view(), other.view(), {}, pool), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.rank = 0}, pool), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.energy = 1.1}, pool), Error);
  EXPECT_THROW(extract_lora(W.view(), W.view(), {.energy = 0}, pool), Error);
  const MatrixF zero = W;
  W(1, 0) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(extract_lora(zero.view(), W.view(), {}, pool), Error);
}

// The spectrum 1 / (k + 1): the randomized way against the exact one.
struct Decaying {
  MatrixF W{};
  double best_energy = 0;  // of rank 12, of the whole
};

Decaying decaying(std::size_t out, std::size_t in, std::uint64_t seed) {
  Rng rng(seed);
  const Svd left = thin_svd(random_matrix(out, 60, rng).view());
  const Svd right = thin_svd(random_matrix(in, 60, rng).view());
  Decaying result{.W = MatrixF(out, in)};
  double first = 0, total = 0;
  for (std::size_t k = 0; k < 60; ++k) {
    const double s = 1.0 / static_cast<double>(k + 1);
    total += s * s;
    if (k < 12) first += s * s;
    for (std::size_t o = 0; o < out; ++o) {
      for (std::size_t i = 0; i < in; ++i) {
        result.W(o, i) += static_cast<float>(s * left.U(o, k) * right.U(i, k));
      }
    }
  }
  result.best_energy = first / total;
  return result;
}

TEST(Extract, OfLargeMatricesIsAsGoodAsTheExactWay) {
  ThreadPool pool(2);
  for (const auto& [out, in] :
       {std::pair<std::size_t, std::size_t>{150, 211}, {257, 101}}) {
    const Decaying tuned = decaying(out, in, 3);
    const MatrixF base(out, in);
    const auto extract = [&](std::size_t exact_side) {
      return extract_lora(base.view(), tuned.W.view(),
                          {.rank = 12, .exact_side = exact_side}, pool);
    };
    const ExtractedLora exact = extract(1000), fast = extract(64);
    EXPECT_NEAR(exact.captured_energy, tuned.best_energy, 1e-6);
    // Each value within (1 + ...)^(1/5) of the best (Halko et al., 10.10), on
    // the squared tail; q = 2 and p = 10 give far better here.
    EXPECT_LE(fast.captured_energy, exact.captured_energy + 1e-6);
    EXPECT_GE(fast.captured_energy, exact.captured_energy - 1e-3);
    // What is captured is what the factors hold.
    MatrixF merged = base;
    merge_in_place({.A = fast.A, .B = fast.B}, 1, merged.view(), pool);
    double left = 0, total = 0;
    for (std::size_t i = 0; i < merged.size(); ++i) {
      const double w = tuned.W.data()[i];
      left += (w - merged.data()[i]) * (w - merged.data()[i]);
      total += w * w;
    }
    EXPECT_NEAR(1 - left / total, fast.captured_energy, 1e-5);
  }
}

TEST(Extract, OfLargeMatricesFindsRankAndEnergy) {
  Rng rng(5);
  ThreadPool pool(2);
  const LoraDelta five = random_lora(140, 160, 5, false, rng);
  MatrixF tuned(140, 160);
  merge_in_place(five, 1, tuned.view(), pool);
  const MatrixF base(140, 160);
  const ExtractedLora all = extract_lora(base.view(), tuned.view(),
                                         {.rank = 20, .exact_side = 64}, pool);
  EXPECT_EQ(all.A.rows(), 5u);
  EXPECT_NEAR(all.captured_energy, 1, 1e-5);

  const Decaying wide = decaying(150, 211, 4);
  const ExtractedLora enough = extract_lora(
      MatrixF(150, 211).view(), wide.W.view(),
      {.rank = 0, .energy = wide.best_energy - 1e-4, .exact_side = 64}, pool);
  EXPECT_EQ(enough.A.rows(), 12u);
}

TEST(Extract, GivesTheSameBytesAtAnyThreadCount) {
  const Decaying tuned = decaying(150, 211, 6);
  const MatrixF base(150, 211);
  ThreadPool one(1), three(3);
  const ExtractConfig config{.rank = 8, .exact_side = 64, .seed = 9};
  const ExtractedLora a =
      extract_lora(base.view(), tuned.W.view(), config, one);
  const ExtractedLora b =
      extract_lora(base.view(), tuned.W.view(), config, three);
  EXPECT_TRUE(std::ranges::equal(a.A.data(), b.A.data()));
  EXPECT_TRUE(std::ranges::equal(a.B.data(), b.B.data()));
}

}  // namespace
}  // namespace llmpress

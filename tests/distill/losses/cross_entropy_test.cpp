#include "distill/losses/cross_entropy.h"

#include "compress/core/error.h"
#include "tests/distill/losses/loss_checks.h"

namespace llmpress {
namespace {

std::vector<std::int32_t> targets_for(std::size_t rows, std::size_t cols) {
  std::vector<std::int32_t> t(rows);
  for (std::size_t r = 0; r < rows; ++r) {
    t[r] = static_cast<std::int32_t>((5 * r + cols / 2) % cols);
  }
  return t;
}

testing::Loss loss_of(std::vector<std::int32_t> targets, float smoothing) {
  return [=](ConstMatrixView Z, std::span<const float> w, MatrixView<float> G,
             ThreadPool& pool, Isa isa) {
    return cross_entropy_loss(Z, targets, w, smoothing, G, pool, isa);
  };
}

TEST(CrossEntropy, OfOneTwoFiveEighths) {
  // exp gives 1, 2, 5: p = (1/8, 1/4, 5/8).
  const MatrixF Z({0, std::log(2.0f), std::log(5.0f)}, 1, 3);
  const std::vector<std::int32_t> target{1};
  const std::vector<float> weight{2};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G({1, 1, 1}, 1, 3);
    const double loss =
        cross_entropy_loss(Z.view(), target, weight, 0, G.view(), pool, isa);
    EXPECT_NEAR(loss, 2 * std::log(4.0), 1e-6);
    EXPECT_NEAR(G(0, 0), 1 + 2 * 0.125, 3e-7);
    EXPECT_NEAR(G(0, 1), 1 - 2 * 0.75, 3e-7);
    EXPECT_NEAR(G(0, 2), 1 + 2 * 0.625, 3e-7);
  }
}

TEST(CrossEntropy, AgreesWithDoubleAndItsDifferences) {
  Rng rng(1);
  for (const std::size_t n : {2u, 17u, 33u, 64u, 131u}) {
    for (const double e : {0.0, 0.1}) {
      const auto targets = targets_for(5, n);
      testing::expect_agrees(
          loss_of(targets, static_cast<float>(e)),
          [&](std::size_t r, const std::vector<double>& z) {
            double loss = 0;
            const auto log_p = testing::log_softmax(z);
            const double smoothing = e == 0 ? 0 : double{0.1f};
            for (std::size_t i = 0; i < n; ++i) {
              loss -= smoothing / static_cast<double>(n) * log_p[i];
            }
            return loss - (1 - smoothing) *
                              log_p[static_cast<std::size_t>(targets[r])];
          },
          testing::noise(5, n, rng, 3));
    }
  }
}

TEST(CrossEntropy, AgreesWithTorch) {
  testing::expect_torch(
      loss_of({4, 2, 1}, 0), 4.01441437686,
      {0.1478191082, -0.4919204871, -1.246284935, 0.01473642754});
  testing::expect_torch(
      loss_of({4, 2, 1}, 0.1f), 4.3134768156,
      {0.140676251, -0.4490633442, -1.074856364, -0.01383500103});
}

TEST(CrossEntropy, LeavesOutNegativeTargets) {
  MatrixF Z(2, 5);
  std::fill_n(Z.row(0).begin(), 5, std::nanf(""));
  const std::vector<std::int32_t> targets{-100, 3};
  const std::vector<float> w{1, 1};
  MatrixF G(2, 5);
  ThreadPool pool(1);
  EXPECT_NEAR(cross_entropy_loss(Z.view(), targets, w, 0, G.view(), pool),
              std::log(5.0), 1e-6);
  for (const float g : G.row(0)) EXPECT_EQ(g, 0);
}

TEST(CrossEntropy, IsTheSameAtAnyThreadCount) {
  Rng rng(2);
  testing::expect_same_at_any_thread_count(
      loss_of(targets_for(67, 3001), 0.1f),
      testing::noise(67, 3001, rng, 2).view());
}

TEST(CrossEntropy, IsFiniteForLogitsOfTenThousand) {
  Rng rng(3);
  testing::expect_finite(loss_of(targets_for(4, 50), 0.1f),
                         testing::noise(4, 50, rng, 1e4).view());
}

TEST(CrossEntropy, RefusesTargetsPastTheVocabularyAndSmoothingOfAll) {
  const MatrixF Z(2, 5);
  MatrixF G(2, 5);
  ThreadPool pool(1);
  const std::vector<float> w{1, 1};
  const auto run = [&](std::int32_t target, float smoothing) {
    const std::vector<std::int32_t> targets{0, target};
    cross_entropy_loss(Z.view(), targets, w, smoothing, G.view(), pool);
  };
  run(4, 0);
  EXPECT_THROW(run(5, 0), Error);
  EXPECT_THROW(run(4, 1), Error);
  EXPECT_THROW(run(4, std::nanf("")), Error);
}

}  // namespace
}  // namespace llmpress

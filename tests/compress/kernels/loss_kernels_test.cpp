#include "compress/kernels/loss_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A row with what the plain kernels say of it.
struct Row {
  std::vector<float> exps;
  SoftmaxRow row;
  explicit Row(std::span<const float> x) : exps(x.size()) {
    const LossKernels& k = loss_kernels(Isa::kScalar);
    const float max = k.max(x.data(), x.size());
    const double sum = k.exp_and_sum(x.data(), x.size(), max, exps.data());
    row = {x.size(), x.data(), exps.data(), max, sum, std::log(sum)};
  }
};

// One comparison with the plain kernels, all of one size and scale.
void compare(const LossKernels& k, std::size_t n, double scale, Rng& rng) {
  const LossKernels& plain = loss_kernels(Isa::kScalar);
  const MatrixF X = testing::random_matrix(3, n, rng, scale);
  const float* const x = X.row(0).data();
  const Row first(X.row(0)), second(X.row(1));
  const SoftmaxRow &p = first.row, &q = second.row;
  const auto expect = [&](auto run, double tolerance) {
    std::vector<float> wanted(n, 0.5f), found(n, 0.5f);
    const double a = run(plain, wanted.data()), b = run(k, found.data());
    EXPECT_NEAR(b, a, tolerance) << "n " << n << " scale " << scale;
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(found[i], wanted[i], tolerance + 1e-7 * std::abs(wanted[i]))
          << "n " << n << " scale " << scale;
    }
  };
  EXPECT_EQ(k.max(x, n), plain.max(x, n));
  // Two units in the last place of each exponential.
  expect([&](auto& f, float* y) { return f.exp_and_sum(x, n, p.max, y); },
         3e-7 * static_cast<double>(n));
  // Of ratios up to the largest difference of logits.
  expect([&](auto& f, float* y) { return f.divergence(p, q, y); },
         1e-6 * (1 + scale));
  expect([&](auto& f, float* y) { return f.add_scaled(p, 3, 0.25f, y), 0.0; },
         1e-6);
  expect([&](auto& f, float* y) { return f.add_difference(p, q, 3, y), 0.0; },
         1e-6);
  expect(
      [&](auto& f, float* y) {
        return f.add_product(p, 3, X.row(2).data(), 0.7, y), 0.0;
      },
      2e-6 * (1 + scale));
  for (const double beta : {0.01, 0.5, 0.9}) {
    // The logarithms count where q is not 0.
    expect(
        [&](auto& f, float* y) {
          std::vector<float> a(n);
          const MixtureSums sums = f.mixture(p, q, beta, a.data());
          f.add_product(q, 1, a.data(), sums.second, y);
          return sums.divergence;
        },
        2e-6);
  }
}

TEST(LossKernels, AgreeWithTheScalarOnes) {
  Rng rng(3);
  for (const Isa isa : available_isas()) {
    for (std::size_t n = 1; n < 70; ++n) {
      for (const double scale : {0.01, 1.0, 30.0, 1e4}) {
        compare(loss_kernels(isa), n, scale, rng);
      }
    }
  }
}

// sums of the mixture at beta 1/2 for p = (3/4, 1/4), q = (1/4, 3/4).
TEST(LossKernels, OfTwoCoins) {
  const std::vector<float> x{std::log(3.0f), 0}, z{5, 5 + std::log(3.0f)};
  const Row p(x), q(z);
  const double of_q = 0.25 * std::log(0.5) + 0.75 * std::log(1.5);
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    std::vector<float> a(2), y(2, 1.0f);
    EXPECT_NEAR(k.divergence(p.row, q.row, a.data()), 0.5 * std::log(3.0),
                3e-7);
    EXPECT_NEAR(a[0], std::log(3.0), 3e-7);
    EXPECT_NEAR(a[1], -std::log(3.0), 3e-7);
    const MixtureSums sums = k.mixture(p.row, q.row, 0.5, a.data());
    EXPECT_NEAR(sums.second, of_q, 3e-7);
    EXPECT_NEAR(sums.divergence, of_q, 3e-7);
    EXPECT_NEAR(a[0], std::log(0.5), 3e-7);
    EXPECT_NEAR(a[1], std::log(1.5), 3e-7);
    k.add_difference(q.row, p.row, 2, y.data());
    EXPECT_NEAR(y[0], 0, 3e-7);
    EXPECT_NEAR(y[1], 2, 3e-7);
  }
}

TEST(LossKernels, GiveExactlyZeroForEqualRows) {
  Rng rng(4);
  const MatrixF X = testing::random_matrix(1, 37, rng, 5);
  const Row p(X.row(0));
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    std::vector<float> y(37), a(37), b(37, 1.0f);
    k.add_difference(p.row, p.row, 0.7, y.data());
    EXPECT_EQ(k.divergence(p.row, p.row, b.data()), 0);
    const MixtureSums sums = k.mixture(p.row, p.row, 0.3, a.data());
    EXPECT_EQ(sums.divergence, 0);
    EXPECT_EQ(sums.second, 0);
    for (std::size_t i = 0; i < 37; ++i) {
      EXPECT_EQ(y[i], 0);
      EXPECT_EQ(a[i], 0);
      EXPECT_EQ(b[i], 0);
    }
  }
}

TEST(LossKernels, TakeMinusInfinityAsProbabilityZero) {
  const std::vector<float> x{0, -kInfinity, 0, -kInfinity},
      z{-kInfinity, 0, 0, -kInfinity};
  const Row p(x), q(z);
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    std::vector<float> a(4), y(4);
    // p = (1/2, 0, 1/2, 0), q = (0, 1/2, 1/2, 0), m = (1/4, 1/4, 1/2, 0).
    const MixtureSums sums = k.mixture(p.row, q.row, 0.5, a.data());
    EXPECT_NEAR(sums.divergence, 0.5 * std::log(2.0), 1e-7);
    EXPECT_NEAR(sums.second, 0.5 * std::log(2.0), 1e-7);
    k.add_product(q.row, 1, a.data(), sums.second, y.data());
    EXPECT_EQ(y[0], 0);
    EXPECT_NEAR(y[1], 0.25 * std::log(2.0), 1e-7);
    EXPECT_NEAR(y[2], -0.25 * std::log(2.0), 1e-7);
    EXPECT_EQ(y[3], 0);
    EXPECT_EQ(k.divergence(p.row, q.row, nullptr), double{kInfinity});
  }
}

TEST(LossKernels, KeepNan) {
  std::vector<float> x(40, 1.0f), z(40, 1.0f);
  x[21] = std::nanf("");
  const Row q(z);
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    std::vector<float> exps(40), a(40), y(40);
    EXPECT_TRUE(std::isnan(k.exp_and_sum(x.data(), 40, 1, exps.data())));
    const SoftmaxRow p{40, x.data(), exps.data(), 1, 40, std::log(40.0)};
    k.add_scaled(p, 40, 0, y.data());
    EXPECT_TRUE(std::isnan(y[21]));
    EXPECT_EQ(y[20], 1);
    EXPECT_TRUE(std::isnan(k.divergence(p, q.row, nullptr)));
    EXPECT_TRUE(std::isnan(k.mixture(p, q.row, 0.5, a.data()).divergence));
  }
}

}  // namespace
}  // namespace llmpress

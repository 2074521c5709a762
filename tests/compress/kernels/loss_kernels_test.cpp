#include "compress/kernels/loss_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Row {
  ScaledExp e;
  double log_sum = 0;
  explicit Row(std::span<const float> x) {
    const LossKernels& k = loss_kernels(Isa::kScalar);
    e.shift = k.max(x.data(), x.size());
    const double sum = k.sum_exp(x.data(), x.size(), e.shift);
    log_sum = double{e.shift} + std::log(sum);
    e.factor = static_cast<float>(1 / sum);
  }
};

// Every vector kernel beside the plain one, all sizes around the lanes.
TEST(LossKernels, AgreeWithTheScalarOnes) {
  Rng rng(3);
  const LossKernels& plain = loss_kernels(Isa::kScalar);
  for (std::size_t n = 1; n < 70; ++n) {
    for (const double scale : {0.01, 1.0, 30.0, 1e4}) {
      const MatrixF X = testing::random_matrix(3, n, rng, scale);
      const float *x = X.row(0).data(), *z = X.row(1).data();
      const Row p(X.row(0)), q(X.row(1));
      const double difference = p.log_sum - q.log_sum;
      const std::vector<float> start(n, 0.5f);
      for (const Isa isa : available_isas()) {
        const LossKernels& k = loss_kernels(isa);
        const auto compare = [&](auto run, double tolerance) {
          std::vector<float> wanted = start, found = start;
          run(plain, wanted.data());
          run(k, found.data());
          for (std::size_t i = 0; i < n; ++i) {
            EXPECT_NEAR(found[i], wanted[i], tolerance)
                << isa_name(isa) << " n " << n << " scale " << scale;
          }
        };
        EXPECT_EQ(k.max(x, n), plain.max(x, n));
        EXPECT_NEAR(k.sum_exp(x, n, p.e.shift), plain.sum_exp(x, n, p.e.shift),
                    3e-7 * static_cast<double>(n));
        EXPECT_NEAR(k.divergence(x, z, n, p.e.shift, difference),
                    plain.divergence(x, z, n, p.e.shift, difference),
                    1e-6 * scale * static_cast<double>(n));
        compare([&](auto& f, float* y) { f.add_exp(x, n, p.e, 0.25f, y); },
                5e-7);
        compare([&](auto& f,
                    float* y) { f.add_exp_difference(x, p.e, z, q.e, n, y); },
                5e-7);
        compare(
            [&](auto& f, float* y) {
              f.add_exp_product(x, p.e, X.row(2).data(), 0.7, n, y);
            },
            1e-6 * (1 + scale));
        for (const double beta : {0.01, 0.5, 0.9}) {
          MixtureSums wanted, found;
          // The log ratio counts where q is not 0.
          compare(
              [&](auto& f, float* y) {
                std::vector<float> a(n);
                (&f == &plain ? wanted : found) =
                    f.mixture(x, p.e, z, q.e, n, difference, beta, a.data());
                f.add_exp_product(z, q.e, a.data(), wanted.second, n, y);
              },
              2e-6);
          if (isa == Isa::kScalar) continue;
          EXPECT_NEAR(found.divergence, wanted.divergence, 1e-6) << scale;
          EXPECT_NEAR(found.second, wanted.second, 5e-6)
              << isa_name(isa) << " n " << n << " scale " << scale << " beta "
              << beta;
        }
      }
    }
  }
}

TEST(LossKernels, GiveExactlyZeroForEqualRows) {
  Rng rng(4);
  const MatrixF X = testing::random_matrix(1, 37, rng, 5);
  const Row p(X.row(0));
  const float* const x = X.row(0).data();
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    std::vector<float> y(37), a(37);
    k.add_exp_difference(x, p.e, x, p.e, 37, y.data());
    const MixtureSums sums = k.mixture(x, p.e, x, p.e, 37, 0, 0.3, a.data());
    EXPECT_EQ(sums.divergence, 0);
    EXPECT_EQ(sums.second, 0);
    for (std::size_t i = 0; i < 37; ++i) {
      EXPECT_EQ(y[i], 0);
      EXPECT_EQ(a[i], 0);
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
    const MixtureSums sums =
        k.mixture(x.data(), p.e, z.data(), q.e, 4, 0, 0.5, a.data());
    EXPECT_NEAR(sums.divergence, 0.5 * std::log(2.0), 1e-7);
    EXPECT_NEAR(sums.second, 0.5 * std::log(2.0), 1e-7);
    k.add_exp_product(z.data(), q.e, a.data(), sums.second, 4, y.data());
    EXPECT_EQ(y[0], 0);
    EXPECT_NEAR(y[1], 0.25 * std::log(2.0), 1e-7);
    EXPECT_NEAR(y[2], -0.25 * std::log(2.0), 1e-7);
    EXPECT_EQ(y[3], 0);
  }
}

TEST(LossKernels, KeepNan) {
  std::vector<float> x(40, 1.0f), z(40, 1.0f), a(40);
  x[21] = std::nanf("");
  for (const Isa isa : available_isas()) {
    const LossKernels& k = loss_kernels(isa);
    EXPECT_TRUE(std::isnan(k.sum_exp(x.data(), 40, 1)));
    std::vector<float> y(40);
    k.add_exp(x.data(), 40, {1, 1}, 0, y.data());
    EXPECT_TRUE(std::isnan(y[21]));
    EXPECT_EQ(y[20], 1);
    const MixtureSums sums =
        k.mixture(x.data(), {1, 1}, z.data(), {1, 1}, 40, 0, 0.5, a.data());
    EXPECT_TRUE(std::isnan(sums.divergence)) << isa_name(isa);
  }
}

}  // namespace
}  // namespace llmpress

#include "compress/kernels/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Softmax, OfOneTwoFourEighths) {
  // exp gives 1, 2, 5: the sum is 8.
  const std::vector<float> z{0, std::log(2.0f), std::log(5.0f)};
  for (const Isa isa : available_isas()) {
    EXPECT_NEAR(log_sum_exp(z, isa), std::log(8.0), 3e-7);
    EXPECT_NEAR(negative_log_likelihood(z, 1, isa), std::log(4.0), 3e-7);
    std::vector<float> p = z, log_p = z;
    softmax_in_place(p, isa);
    log_softmax_in_place(log_p, isa);
    const double wanted[] = {0.125, 0.25, 0.625};
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(p[i], wanted[i], 2e-7);
      EXPECT_NEAR(log_p[i], std::log(wanted[i]), 4e-7);
    }
  }
}

TEST(Softmax, DivergenceOfTwoCoins) {
  // p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2.
  const std::vector<float> p{std::log(3.0f), 0}, q{7, 7};
  const double wanted = 0.75 * std::log(1.5) + 0.25 * std::log(0.5);
  for (const Isa isa : available_isas()) {
    EXPECT_NEAR(kl_divergence(p, q, isa), wanted, 2e-7);
    EXPECT_EQ(kl_divergence(p, p, isa), 0.0);
    EXPECT_EQ(kl_divergence(q, q, isa), 0.0);
  }
}

TEST(Softmax, InfinitiesAreProbabilitiesOfZero) {
  const std::vector<float> p{1, -kInfinity, 1}, q{1, 1, 1};
  for (const Isa isa : available_isas()) {
    EXPECT_NEAR(log_sum_exp(p, isa), 1 + std::log(2.0), 1e-7);
    EXPECT_NEAR(kl_divergence(p, q, isa), std::log(1.5), 2e-7);
    EXPECT_EQ(kl_divergence(q, p, isa), double{kInfinity});
    std::vector<float> x = p;
    softmax_in_place(x, isa);
    EXPECT_EQ(x[1], 0.0f);
    EXPECT_NEAR(x[2], 0.5f, 1e-7);
    EXPECT_EQ(log_sum_exp(std::vector<float>(20, -kInfinity), isa),
              -double{kInfinity});
  }
}

TEST(Softmax, NanStaysNan) {
  std::vector<float> z(40, 1.0f);
  z[21] = std::nanf("");
  for (const Isa isa : available_isas()) {
    EXPECT_TRUE(std::isnan(log_sum_exp(z, isa))) << isa_name(isa);
    EXPECT_TRUE(std::isnan(negative_log_likelihood(z, 0, isa)));
    EXPECT_TRUE(std::isnan(kl_divergence(z, z, isa)));
  }
}

TEST(Softmax, AgreesWithDoubleOverAllSizesAndRanges) {
  Rng rng(1);
  for (std::size_t n = 1; n < 70; ++n) {
    for (const double scale : {0.01, 3.0, 50.0, 1e4}) {
      const MatrixF z = testing::random_matrix(2, n, rng, scale);
      const auto total = [](std::span<const float> row) {
        double max = -1e300, sum = 0;
        for (const float x : row) max = std::max(max, double{x});
        for (const float x : row) sum += std::exp(double{x} - max);
        return max + std::log(sum);
      };
      const double p_total = total(z.row(0)), q_total = total(z.row(1));
      double divergence = 0, spread = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double p = std::exp(double{z(0, i)} - p_total);
        const double d =
            double{z(0, i)} - p_total - (double{z(1, i)} - q_total);
        divergence += p * d;
        spread += p * std::abs(d);
      }
      for (const Isa isa : available_isas()) {
        // exp errs by 2 units in the last place, in float.
        EXPECT_NEAR(log_sum_exp(z.row(0), isa), p_total, 3e-7);
        EXPECT_NEAR(kl_divergence(z.row(0), z.row(1), isa), divergence,
                    3e-7 * (2 + spread));
        std::vector<float> p(z.row(0).begin(), z.row(0).end());
        softmax_in_place(p, isa);
        for (std::size_t i = 0; i < n; ++i) {
          EXPECT_NEAR(p[i], std::exp(double{z(0, i)} - p_total), 5e-7);
        }
      }
    }
  }
}

TEST(Softmax, ArgmaxTakesTheFirstOfEquals) {
  EXPECT_EQ(argmax(std::vector<float>{1, 5, -2, 5}), 1u);
  EXPECT_EQ(argmax(std::vector<float>{-3}), 0u);
}

}  // namespace
}  // namespace llmpress

#include "compress/kernels/activations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

constexpr Activation kAll[] = {Activation::kSilu,     Activation::kGeluTanh,
                               Activation::kGeluErf,  Activation::kRelu,
                               Activation::kRelu2,    Activation::kSigmoid,
                               Activation::kSoftplus, Activation::kTanh};

double exact(Activation f, double x) {
  switch (f) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) *
                            (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kRelu:
      return x > 0 ? x : 0;
    case Activation::kRelu2:
      return x > 0 ? x * x : 0;
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kSoftplus:
      return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
    case Activation::kTanh:
      return std::tanh(x);
  }
  return 0;
}

std::vector<float> sample() {
  std::vector<float> x;
  for (int i = -30000; i <= 30000; ++i) {
    x.push_back(static_cast<float>(i) * 1e-3f);
  }
  for (const float far : {0.0f, 1e-30f, 88.0f, 89.5f, 200.0f, 1e9f, 1e30f}) {
    x.push_back(far);
    x.push_back(-far);
  }
  return x;
}

TEST(Activations, KnownValues) {
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    const auto at = [&](Activation f, float x) {
      MatrixF X({x}, 1, 1);
      activate_in_place(f, X.view(), pool, isa);
      return X(0, 0);
    };
    EXPECT_NEAR(at(Activation::kSilu, 1), 0.7310586f, 3e-7);
    EXPECT_NEAR(at(Activation::kGeluErf, 1), 0.8413447f, 3e-7);
    EXPECT_NEAR(at(Activation::kGeluTanh, 1), 0.8411920f, 3e-7);
    EXPECT_EQ(at(Activation::kRelu, -1), 0.0f);
    EXPECT_EQ(at(Activation::kRelu, 2.5f), 2.5f);
    for (const Activation f : kAll) {
      EXPECT_NEAR(at(f, 0), exact(f, 0), 1e-7);
      EXPECT_TRUE(std::isnan(at(f, std::nanf("")))) << static_cast<int>(f);
    }
  }
}

TEST(Activations, StayWithinTheStatedError) {
  ThreadPool pool(2);
  const std::vector<float> x = sample();
  for (const Isa isa : available_isas()) {
    for (const Activation f : kAll) {
      MatrixF Y(x, 1, x.size());
      activate_in_place(f, Y.view(), pool, isa);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double wanted = exact(f, double{x[i]});
        if (wanted > double{std::numeric_limits<float>::max()}) {
          ASSERT_TRUE(std::isinf(Y(0, i)));
          continue;
        }
        ASSERT_NEAR(Y(0, i), wanted,
                    4e-7 * std::max({1.0, std::abs(double{x[i]}), wanted}))
            << "activation " << static_cast<int>(f) << " at " << x[i] << " on "
            << isa_name(isa);
      }
    }
  }
}

TEST(Activations, GatesMultiplyAndMayOverwriteTheirInput) {
  Rng rng(1);
  ThreadPool pool(2);
  for (const std::size_t n :
       std::initializer_list<std::size_t>{1, 15, 16, 17, 9000}) {
    const MatrixF gate = testing::random_matrix(1, n, rng);
    const MatrixF up = testing::random_matrix(1, n, rng);
    for (const Isa isa : available_isas()) {
      for (const Activation f : kAll) {
        MatrixF wanted = gate, out(1, n), over = gate;
        activate_in_place(f, wanted.view(), pool, isa);
        gated_activation(f, gate.view(), up.view(), out.view(), pool, isa);
        gated_activation(f, over.view(), up.view(), over.view(), pool, isa);
        for (std::size_t i = 0; i < n; ++i) {
          ASSERT_EQ(out(0, i), wanted(0, i) * up(0, i));
          ASSERT_EQ(over(0, i), out(0, i));
        }
      }
    }
  }
}

}  // namespace
}  // namespace llmpress

#include "compress/model/training/lora_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using llmpress::testing::random_grouped;
using llmpress::testing::random_matrix;
using llmpress::testing::Zeros;
using Values = std::vector<float>;

LinearWeights dense(const MatrixF& W, Values bias = {}) {
  return {.weight = make_dense(W.view(), DType::kF32), .bias = std::move(bias)};
}

// A, B and, of DoRA, the magnitude.
std::vector<Parameter> parameters_of(LoraLinear& linear) {
  std::vector<Parameter> all;
  linear.list_parameters("l", all);
  return all;
}

struct Result {
  MatrixF Y{}, dX{};
  std::vector<Values> gradients{};  // of the parameters
};

Result run(LoraLinear& linear, const MatrixF& X, const MatrixF& dY,
           std::size_t threads = 2) {
  ThreadPool pool(threads);
  Result result{.Y = MatrixF(X.rows(), linear.out()),
                .dX = MatrixF(X.rows(), X.cols())};
  for (const Parameter& p : parameters_of(linear)) {
    std::ranges::fill(p.gradient, 0.0f);
  }
  linear.run(X.view(), result.Y.view(), pool);
  linear.run_backward(X.view(), dY.view(), result.dX.view(), pool);
  for (const Parameter& p : parameters_of(linear)) {
    result.gradients.emplace_back(p.gradient.begin(), p.gradient.end());
  }
  return result;
}

void expect_near(std::span<const float> found, std::span<const float> wanted,
                 const char* what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], wanted[i], 2e-6f) << what << " " << i;
  }
}

// ((i a + b) mod m - m / 2) / d: exact in any precision.
MatrixF ramp(std::size_t rows, std::size_t cols, std::size_t a, std::size_t b,
             std::size_t m, float d) {
  MatrixF values(rows, cols);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t middle = m / 2;
    values.data()[i] =
        (static_cast<float>((i * a + b) % m) - static_cast<float>(middle)) / d;
  }
  return values;
}

Result of_the_example(const LoraConfig& config) {
  const MatrixF bias = ramp(1, 3, 5, 1, 7, 4);
  LoraLinear linear(dense(ramp(3, 4, 7, 3, 11, 8),
                          Values(bias.data().begin(), bias.data().end())),
                    config, best_isa());
  const auto parameters = parameters_of(linear);
  std::ranges::copy(ramp(2, 4, 3, 2, 9, 16).data(),
                    parameters[0].value.begin());
  std::ranges::copy(ramp(3, 2, 5, 4, 7, 8).data(), parameters[1].value.begin());
  if (config.dora) {
    for (float& m : parameters[2].value) m *= 1.25f;
  }
  return run(linear, ramp(2, 4, 5, 2, 13, 4), ramp(2, 3, 3, 1, 5, 2));
}

// Expected numbers: peft 0.21.2 in float64 on the same values.
TEST(LoraLinear, GivesTheNumbersOfPeft) {
  const Result found = of_the_example({.rank = 2, .scaling = 1.5});
  expect_near(found.Y.data(),
              Values{0.4306641f, -1.094727f, 0.8007812f, -1.963867f, 1.708008f,
                     0.6953125f},
              "y");
  expect_near(found.dX.data(),
              Values{0.7363281f, -0.2363281f, -0.7851562f, 0.6738281f, 0.65625f,
                     -0.2011719f, -0.6875f, 0.78125f},
              "dx");
  expect_near(found.gradients[0],
              Values{0.3046875f, 0.421875f, -0.984375f, -0.2578125f, -0.046875f,
                     -0.5859375f, 0.703125f, 0.46875f},
              "dA");
  expect_near(found.gradients[1],
              Values{0.05859375f, 0.4453125f, 0.6210938f, -0.46875f, 0.2460938f,
                     0.140625f},
              "dB");
}

TEST(LoraLinear, GivesTheNumbersOfPeftForRankStabilizedScaling) {
  const Result found =
      of_the_example({.rank = 2, .scaling = 3 / std::sqrt(2.0)});
  expect_near(found.Y.data(),
              Values{0.4925534f, -1.263405f, 0.8347597f, -1.974789f, 1.755335f,
                     0.7244369f},
              "y");
  expect_near(found.gradients[1],
              Values{0.08286408f, 0.629767f, 0.8783592f, -0.6629126f,
                     0.3480291f, 0.1988738f},
              "dB");
}

TEST(LoraLinear, GivesTheNumbersOfPeftForDora) {
  const Result found =
      of_the_example({.rank = 2, .scaling = 1.5, .dora = true});
  expect_near(
      found.Y.data(),
      Values{0.6390733f, -1.05256f, 0.8491189f, -2.29168f, 1.68611f, 0.734394f},
      "y");
  expect_near(found.dX.data(),
              Values{0.7546847f, -0.3037111f, -0.7913102f, 0.7090379f,
                     0.7198344f, -0.3023894f, -0.7364073f, 0.8797402f},
              "dx");
  expect_near(found.gradients[0],
              Values{0.2861545f, 0.4642899f, -0.9965797f, -0.2981933f,
                     -0.01867917f, -0.6505288f, 0.7217585f, 0.5302358f},
              "dA");
  expect_near(found.gradients[1],
              Values{0.071715f, 0.545034f, 0.6068969f, -0.4580354f, 0.2676914f,
                     0.1529665f},
              "dB");
  expect_near(found.gradients[2], Values{1.252477f, -1.333854f, -0.2658332f},
              "dm");
}

// The same in double, norms of rows held as they are at the beginning.
class Reference {
 public:
  Reference(const MatrixF& W, std::span<const float> bias,
            const LoraConfig& config)
      : W_(W), bias_(bias), config_(config) {}

  double weight(const MatrixF& A, const MatrixF& B, std::size_t o,
                std::size_t i) const {
    double sum = 0;
    for (std::size_t k = 0; k < config_.rank; ++k) {
      sum += static_cast<double>(B(o, k)) * static_cast<double>(A(k, i));
    }
    return static_cast<double>(W_(o, i)) + config_.scaling * sum;
  }

  void hold_norms(const MatrixF& A, const MatrixF& B) {
    norms_.clear();
    for (std::size_t o = 0; o < W_.rows(); ++o) {
      double sum = 0;
      for (std::size_t i = 0; i < W_.cols(); ++i) {
        sum += std::pow(weight(A, B, o, i), 2);
      }
      norms_.push_back(std::sqrt(sum));
    }
  }

  double output(const MatrixF& X, const std::vector<MatrixF>& p, std::size_t t,
                std::size_t o) const {
    double z = 0;
    for (std::size_t i = 0; i < W_.cols(); ++i) {
      z += static_cast<double>(X(t, i)) * weight(p[0], p[1], o, i);
    }
    if (config_.dora) z *= static_cast<double>(p[2](0, o)) / norms_[o];
    return bias_.empty() ? z : z + static_cast<double>(bias_[o]);
  }

  // sum of c o Y
  double loss(const MatrixF& X, const std::vector<MatrixF>& p,
              const MatrixF& c) const {
    double sum = 0;
    for (std::size_t t = 0; t < X.rows(); ++t) {
      for (std::size_t o = 0; o < W_.rows(); ++o) {
        sum += static_cast<double>(c(t, o)) * output(X, p, t, o);
      }
    }
    return sum;
  }

 private:
  const MatrixF& W_;
  std::span<const float> bias_;
  LoraConfig config_;
  std::vector<double> norms_;
};

void expect_differences(LinearWeights base, const LoraConfig& config) {
  Rng rng(11);
  const MatrixF W = dequantize(base.weight);
  base.bias = llmpress::testing::random_scales(W.rows(), DType::kF32, rng);
  const Values bias = base.bias;
  LoraLinear linear(std::move(base), config, Isa::kScalar);
  std::vector<MatrixF> values;
  for (const Parameter& p : parameters_of(linear)) {
    for (float& v : p.value) v += static_cast<float>(0.2 * rng.normal());
    values.emplace_back(p.shape.size() == 2 ? p.shape[0] : 1, p.shape.back());
    std::ranges::copy(p.value, values.back().data().begin());
  }
  MatrixF X = random_matrix(5, W.cols(), rng);
  const MatrixF c = random_matrix(5, W.rows(), rng);
  const Result found = run(linear, X, c);
  Reference reference(W, bias, config);
  reference.hold_norms(values[0], values[1]);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    const double y = reference.output(X, values, 3, o);
    EXPECT_NEAR(found.Y(3, o), y, 1e-4 * (1 + std::fabs(y)));
  }
  // Linear in each number by itself: any step does.
  const auto difference = [&](float& at) {
    const float before = at;
    at = before + 1;
    const double above = reference.loss(X, values, c);
    at = before - 1;
    const double below = reference.loss(X, values, c);
    at = before;
    return (above - below) / 2;
  };
  for (std::size_t p = 0; p < values.size(); ++p) {
    for (std::size_t i = 0; i < values[p].size(); i += 3) {
      const double wanted = difference(values[p].data()[i]);
      EXPECT_NEAR(found.gradients[p][i], wanted, 2e-4 * (1 + std::fabs(wanted)))
          << p << " " << i;
    }
  }
  for (std::size_t i = 0; i < X.size(); i += 3) {
    const double wanted = difference(X.data()[i]);
    EXPECT_NEAR(found.dX.data()[i], wanted, 2e-4 * (1 + std::fabs(wanted)));
  }
}

TEST(LoraLinear, HasTheGradientsOfDifferencesOnDenseAndPackedBases) {
  for (const bool dora : {false, true}) {
    const LoraConfig config{.rank = 3, .scaling = 0.7, .dora = dora, .seed = 4};
    Rng rng(2);
    expect_differences(dense(random_matrix(19, 13, rng)), config);
    expect_differences({.weight = random_grouped(17, 32, 4, 16, Zeros::kInteger,
                                                 false, DType::kF16, rng)},
                       config);
  }
}

TEST(LoraLinear, BeginsAsItsBase) {
  Rng rng(5);
  const MatrixF W = random_matrix(9, 7, rng), X = random_matrix(4, 7, rng);
  const Values bias(9, 0.25f);
  FrozenLinear base(dense(W, bias), best_isa());
  MatrixF wanted(4, 9);
  ThreadPool pool(1);
  base.run(X.view(), wanted.view(), pool);
  for (const bool dora : {false, true}) {
    LoraLinear linear(dense(W, bias), {.rank = 2, .dora = dora}, best_isa());
    const Result found = run(linear, X, MatrixF(4, 9));
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_NEAR(found.Y.data()[i], wanted.data()[i], dora ? 2e-6f : 0.0f);
    }
    const auto A = parameters_of(linear)[0].value;
    EXPECT_LE(*std::ranges::max_element(A), 1 / std::sqrt(7.0f));
    EXPECT_GE(*std::ranges::min_element(A), -1 / std::sqrt(7.0f));
    EXPECT_GT(*std::ranges::max_element(A), 0.1f);
    EXPECT_LT(*std::ranges::min_element(A), -0.1f);
  }
}

TEST(LoraLinear, GivesTheSameBytesAtAnyThreadCount) {
  Rng rng(6);
  LoraLinear linear(dense(random_matrix(300, 70, rng)),
                    {.rank = 5, .dora = true}, best_isa());
  for (const Parameter& p : parameters_of(linear)) {
    for (float& v : p.value) v += static_cast<float>(0.1 * rng.normal());
  }
  const MatrixF X = random_matrix(150, 70, rng);
  const MatrixF dY = random_matrix(150, 300, rng);
  const Result one = run(linear, X, dY, 1), three = run(linear, X, dY, 3);
  EXPECT_TRUE(std::ranges::equal(one.Y.data(), three.Y.data()));
  EXPECT_TRUE(std::ranges::equal(one.dX.data(), three.dX.data()));
  EXPECT_EQ(one.gradients, three.gradients);
}

TEST(LoraLinear, RefusesRanksThatDoNotFit) {
  Rng rng(7);
  for (const std::size_t rank : {std::size_t{0}, std::size_t{8}}) {
    try {
      LoraLinear linear(dense(random_matrix(9, 7, rng)), {.rank = rank},
                        best_isa());
      ADD_FAILURE() << rank;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("wanted 1 to 7"),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace llmpress

// Bottlenecks and differences that learn around a frozen Linear, against
// differences and a plain reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compress/model/training/bottleneck_linear.h"
#include "compress/model/training/difference_linear.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  return llmpress::testing::random_matrix(rows, cols, rng);
}

constexpr std::size_t kOut = 7, kIn = 5, kRows = 9;

std::unique_ptr<TrainableLinear> frozen() {
  const MatrixF W = random_matrix(kOut, kIn, 1);
  return std::make_unique<FrozenLinear>(
      LinearWeights{.weight = make_dense(W.view(), DType::kF32),
                    .bias = std::vector<float>(kOut, 0.25f)},
      best_isa());
}

std::vector<Parameter> parameters_of(TrainableLinear& linear) {
  std::vector<Parameter> all;
  linear.list_parameters("l", all);
  return all;
}

// sum of dY o y(X).
double product(const TrainableLinear& linear, const MatrixF& X,
               const MatrixF& dY) {
  ThreadPool pool(2);
  MatrixF Y(X.rows(), kOut);
  linear.run(X.view(), Y.view(), pool);
  double sum = 0;
  for (std::size_t i = 0; i < Y.size(); ++i) {
    sum += static_cast<double>(Y.data()[i]) * static_cast<double>(dY.data()[i]);
  }
  return sum;
}

// Of every number the gradient against the central difference; `changed` is
// called after a number was moved.
void expect_gradients(TrainableLinear& linear,
                      const std::function<void()>& changed) {
  MatrixF X = random_matrix(kRows, kIn, 2);
  const MatrixF dY = random_matrix(kRows, kOut, 3);
  ThreadPool pool(2);
  MatrixF dX(kRows, kIn);
  linear.run_backward(X.view(), dY.view(), dX.view(), pool);
  const auto compare = [&](std::span<float> numbers,
                           std::span<const float> gradient,
                           const std::string& what) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      constexpr float kStep = 1e-2f;
      const float was = numbers[i];
      numbers[i] = was + kStep;
      changed();
      const double above = product(linear, X, dY);
      numbers[i] = was - kStep;
      changed();
      const double below = product(linear, X, dY);
      numbers[i] = was;
      changed();
      const double wanted = (above - below) / (2 * double{kStep});
      EXPECT_NEAR(gradient[i], wanted, 2e-2 * (1 + std::fabs(wanted)))
          << what << " " << i;
    }
  };
  compare(X.data(), dX.data(), "X");
  for (const Parameter& p : parameters_of(linear)) {
    if (p.name == "l.log_alpha") continue;  // by its slope
    compare(p.value, p.gradient, p.name);
  }
}

TEST(BottleneckLinear, ChangesNothingBeforeItLearns) {
  BottleneckLinear linear(frozen(), {.size = 3, .seed = 4}, best_isa());
  const MatrixF X = random_matrix(kRows, kIn, 2),
                dY = random_matrix(kRows, kOut, 3);
  EXPECT_EQ(product(linear, X, dY), product(*frozen(), X, dY));
}

TEST(BottleneckLinear, HasTheGradientsOfDifferences) {
  // Smooth ones: relu's corner is no matter of steps.
  for (const Activation f : {Activation::kGeluErf, Activation::kSilu}) {
    BottleneckLinear linear(frozen(), {.size = 3, .activation = f, .seed = 4},
                            best_isa());
    std::size_t seed = 10;
    for (const Parameter& p : parameters_of(linear)) {
      const MatrixF values = random_matrix(1, p.value.size(), seed++);
      for (std::size_t i = 0; i < p.value.size(); ++i) {
        p.value[i] = 0.5f * values.data()[i];
      }
    }
    expect_gradients(linear, [] {});
  }
}

TEST(BottleneckLinear, AddsASmallMlpOfItsOutput) {
  BottleneckLinear linear(frozen(), {.size = 1, .seed = 4}, best_isa());
  const auto parameters = parameters_of(linear);
  ASSERT_EQ(parameters.size(), 4u);
  std::ranges::fill(parameters[0].value, 1.0f);   // D
  std::ranges::fill(parameters[1].value, -0.5f);  // d
  std::ranges::fill(parameters[2].value, 2.0f);   // U
  std::ranges::fill(parameters[3].value, 0.125f);
  ThreadPool pool(1);
  const MatrixF X = random_matrix(kRows, kIn, 2);
  MatrixF base(kRows, kOut), found(kRows, kOut);
  frozen()->run(X.view(), base.view(), pool);
  linear.run(X.view(), found.view(), pool);
  for (std::size_t r = 0; r < kRows; ++r) {
    float z = -0.5f;
    for (const float y : base.row(r)) z += y;
    for (std::size_t c = 0; c < kOut; ++c) {
      EXPECT_NEAR(found(r, c), base(r, c) + 2 * std::max(0.0f, z) + 0.125f,
                  1e-5f);
    }
  }
}

TEST(DifferenceLinear, HasTheGradientsOfDifferencesUnderItsGates) {
  DifferenceLinear linear(frozen(), 5, 10);
  ThreadPool pool(2);
  auto& n = linear.numbers();
  n.w = random_matrix(kOut, kIn, 6);
  n.z = random_matrix(kOut, kIn, 7);
  n.slope = random_matrix(kOut, kIn, 8);
  linear.gates_changed(pool);
  expect_gradients(linear, [&] { linear.gates_changed(pool); });
  // d log_alpha = dL/dz dz/d log_alpha, dL/dz = dL/d(z o w) w.
  for (std::size_t i = 0; i < n.w.size(); ++i) {
    const double of_delta = static_cast<double>(n.d_w.data()[i]) /
                            static_cast<double>(n.z.data()[i]);
    EXPECT_NEAR(n.d_log_alpha.data()[i],
                of_delta * static_cast<double>(n.w.data()[i]) *
                    static_cast<double>(n.slope.data()[i]),
                1e-4 * (1 + std::fabs(of_delta)));
  }
}

TEST(DifferenceLinear, BeginsAsItsBase) {
  DifferenceLinear linear(frozen(), 5, 10);
  const MatrixF X = random_matrix(kRows, kIn, 2),
                dY = random_matrix(kRows, kOut, 3);
  EXPECT_EQ(product(linear, X, dY), product(*frozen(), X, dY));
}

}  // namespace
}  // namespace llmpress

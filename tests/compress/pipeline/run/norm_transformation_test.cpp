#include "compress/pipeline/run/norm_transformation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF m(rows, cols);
  for (float& x : m.data()) x = static_cast<float>(rng.normal());
  return m;
}

NormWeights norm_of_five() {
  return {
      .gain = {0.5f, 1, -2, 3, 0.25f}, .bias = {1, 2, 3, 4, 5}, .offset = 1};
}

// y = W' ((gain' + offset) x + bias') stays as it is.
TEST(NormTransformation, LeavesTheFunctionAsItIs) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(3, 5, 1);
  MatrixF scaled = W;
  NormTransformation transformation(norm_of_five(), {&scaled});
  const MatrixF D = random_matrix(3, 5, 2);
  const std::vector<ConstMatrixView> gradients{D.view()};
  transformation.step(gradients,
                      {.gain = {1, -2, 3, 4, -5}, .bias = {0, 1, 0, -1, 2}}, 0,
                      0.5f, pool);
  const NormWeights before = norm_of_five(), after = transformation.norm();
  for (std::size_t i = 0; i < 5; ++i) {
    const float t = transformation.scales()[i];
    EXPECT_GT(std::abs(std::log(t)), 0.4f);  // AdamW's first step: the rate
    EXPECT_NEAR((after.gain[i] + 1) * t, before.gain[i] + 1, 1e-5);
    EXPECT_NEAR(after.bias[i] * t, before.bias[i], 1e-5);
    for (std::size_t o = 0; o < 3; ++o) {
      EXPECT_NEAR(scaled(o, i), W(o, i) * t, 1e-5);
    }
  }
}

// L = sum D o W' + d_gain . gain' + d_bias . bias', whose derivative by tau_i
// has the sign that the first step of AdamW goes against.
TEST(NormTransformation, GoesDownTheGradient) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(3, 5, 1), V = random_matrix(2, 5, 8);
  MatrixF scaled = W, other = V;
  NormTransformation transformation(norm_of_five(), {&scaled, &other});
  const MatrixF D = random_matrix(3, 5, 2), E = random_matrix(2, 5, 9);
  const NormGradients d{.gain = {1, -2, 3, 4, -5}, .bias = {0, 1, 0, -1, 2}};
  const auto loss = [&](std::size_t i, double tau) {
    const double t = std::exp(tau);
    double sum = 0;
    for (std::size_t o = 0; o < 3; ++o) sum += D(o, i) * W(o, i) * t;
    for (std::size_t o = 0; o < 2; ++o) sum += E(o, i) * V(o, i) * t;
    const NormWeights norm = norm_of_five();
    return sum + d.gain[i] * (norm.gain[i] + 1) / t +
           d.bias[i] * norm.bias[i] / t;
  };
  const std::vector<ConstMatrixView> gradients{D.view(), E.view()};
  transformation.step(gradients, d, 0, 0.01f, pool);
  for (std::size_t i = 0; i < 5; ++i) {
    const double slope = (loss(i, 1e-4) - loss(i, -1e-4)) / 2e-4;
    const double moved = std::log(transformation.scales()[i]);
    EXPECT_NEAR(moved, slope > 0 ? -0.01 : 0.01, 1e-5) << i << ' ' << slope;
  }
}

}  // namespace
}  // namespace llmpress

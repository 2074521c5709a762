#include "compress/kernels/norms.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

TEST(Norms, RmsOfThreeAndFour) {
  // mean(x^2) = 12.5
  const MatrixF X({3, 4}, 1, 2);
  MatrixF Y(1, 2);
  ThreadPool pool(1);
  const std::vector<float> gain{2, -1};
  rms_norm(X.view(), gain, 0, Y.view(), pool);
  EXPECT_FLOAT_EQ(Y(0, 0), 6 / std::sqrt(12.5f));
  EXPECT_FLOAT_EQ(Y(0, 1), -4 / std::sqrt(12.5f));
  rms_norm(X.view(), gain, 3.5f, Y.view(), pool);  // 12.5 + 3.5 = 4^2
  EXPECT_EQ(Y(0, 0), 1.5f);
}

TEST(Norms, LayerNormOfOneTwoThree) {
  // mean 2, var 2/3
  const MatrixF X({1, 2, 3}, 1, 3);
  MatrixF Y(1, 3);
  ThreadPool pool(1);
  const std::vector<float> gain{1, 1, 2}, bias{0, 5, 1};
  layer_norm(X.view(), gain, bias, 0, Y.view(), pool);
  const float z = std::sqrt(1.5f);
  EXPECT_FLOAT_EQ(Y(0, 0), -z);
  EXPECT_FLOAT_EQ(Y(0, 1), 5);
  EXPECT_FLOAT_EQ(Y(0, 2), 2 * z + 1);
  layer_norm(X.view(), gain, {}, 0, Y.view(), pool);
  EXPECT_FLOAT_EQ(Y(0, 2), 2 * z);
}

TEST(Norms, RowsOfZerosGiveZerosAndLargeOnesStayFinite) {
  MatrixF X(2, 3), Y(2, 3);
  for (float& x : X.row(1)) x = 3e38f;
  ThreadPool pool(1);
  const std::vector<float> gain(3, 1.0f);
  rms_norm(X.view(), gain, 1e-6f, Y.view(), pool);
  for (const float y : Y.row(0)) EXPECT_EQ(y, 0.0f);
  for (const float y : Y.row(1)) EXPECT_FLOAT_EQ(y, 1.0f);
  layer_norm(X.view(), gain, {}, 1e-6f, Y.view(), pool);
  for (const float y : Y.data()) EXPECT_EQ(y, 0.0f);
}

TEST(Norms, AgreeWithTheFormulaInDoubleAtAnyThreadCountAndInPlace) {
  Rng rng(1);
  const MatrixF X = testing::random_matrix(67, 53, rng);
  const MatrixF gain = testing::random_matrix(1, 53, rng);
  MatrixF rms = X, layer = X;
  ThreadPool pool(3);
  rms_norm(rms.view(), gain.data(), 1e-5f, rms.view(), pool);
  layer_norm(layer.view(), gain.data(), gain.data(), 1e-5f, layer.view(), pool);
  for (std::size_t r = 0; r < X.rows(); ++r) {
    double squares = 0, sum = 0, variance = 0;
    for (const float x : X.row(r)) squares += double{x} * double{x};
    for (const float x : X.row(r)) sum += double{x};
    for (const float x : X.row(r)) {
      variance += (double{x} - sum / 53) * (double{x} - sum / 53);
    }
    for (std::size_t i = 0; i < 53; ++i) {
      const double g = double{gain(0, i)};
      EXPECT_NEAR(rms(r, i),
                  double{X(r, i)} / std::sqrt(squares / 53 + 1e-5) * g,
                  1e-6 * (1 + std::abs(g) * 4));
      EXPECT_NEAR(
          layer(r, i),
          (double{X(r, i)} - sum / 53) / std::sqrt(variance / 53 + 1e-5) * g +
              g,
          1e-6 * (1 + std::abs(g) * 4));
    }
  }
}

}  // namespace
}  // namespace llmpress

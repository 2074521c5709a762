#include "quantizers/rotation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "quantizers/rtn.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

TEST(Rotation, OfTwoByHand) {
  MatrixF X({3, 1}, 1, 2);
  ThreadPool pool(1);
  rotate_vectors_in_place(X.view(), {.block = 2, .signs = {1, -1}}, pool);
  // H [[1, 1], [1, -1]] / sqrt 2 of (3, -1).
  EXPECT_FLOAT_EQ(X(0, 0), std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(X(0, 1), 4 / std::sqrt(2.0f));
}

TEST(Rotation, ConsumersOfRotatedInputsAgree) {
  ThreadPool pool(2);
  for (const std::size_t size : {64u, 96u, 172u, 40u, 7u}) {
    const Rotation rotation = random_rotation(size, 5);
    MatrixF W = random_matrix(9, size, 1), X = random_matrix(4, size, 2);
    const MatrixF W0 = W, X0 = X;
    rotate_input_in_place(W.view(), rotation, pool);
    rotate_vectors_in_place(X.view(), rotation, pool);
    for (std::size_t o = 0; o < 9; ++o) {
      for (std::size_t t = 0; t < 4; ++t) {
        EXPECT_NEAR(dot(W.row(o), X.row(t)), dot(W0.row(o), X0.row(t)), 1e-4);
      }
    }
    unrotate_vectors_in_place(X.view(), rotation, pool);
    for (std::size_t k = 0; k < X.size(); ++k) {
      EXPECT_NEAR(X.data()[k], X0.data()[k], 1e-5f) << size;
    }
  }
}

TEST(Rotation, ProducersWriteRotatedOutputs) {
  ThreadPool pool(2);
  const Rotation rotation = random_rotation(48, 6);
  MatrixF W = random_matrix(48, 21, 1);
  const MatrixF W0 = W, x = random_matrix(1, 21, 2);
  MatrixF y(1, 48);
  for (std::size_t o = 0; o < 48; ++o) {
    y(0, o) = static_cast<float>(dot(W0.row(o), x.row(0)));
  }
  rotate_output_in_place(W.view(), rotation, pool);
  rotate_vectors_in_place(y.view(), rotation, pool);
  for (std::size_t o = 0; o < 48; ++o) {
    EXPECT_NEAR(dot(W.row(o), x.row(0)), static_cast<double>(y(0, o)), 1e-4);
  }
}

TEST(Rotation, BlocksOfHeadsMixOnlyWithinThemselves) {
  ThreadPool pool(1);
  MatrixF X(1, 32);
  X(0, 9) = 1;
  rotate_vectors_in_place(X.view(), {.block = 8}, pool);
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(X(0, i) != 0.0f, i / 8 == 1) << i;
  }
}

TEST(Rotation, SpreadsAnOutlierAndMakesFourBitsUsable) {
  ThreadPool pool(1);
  MatrixF W = random_matrix(16, 128, 3);
  for (std::size_t o = 0; o < 16; ++o) W(o, 17) *= 50;
  QuantizeConfig config;
  config.weights.group_size = -1;
  const auto error = [&] {
    return output_error(
        W.view(), dequantize(round_to_nearest(W.view(), config, pool)).view(),
        {}, pool);
  };
  const double before = error();
  rotate_input_in_place(W.view(), random_rotation(128, 1), pool);
  EXPECT_LT(error(), 0.2 * before);
}

TEST(Rotation, FoldedNormsKeepTheFunction) {
  // W (gain o x + shift) + bias.
  const MatrixF W = random_matrix(5, 12, 1), x = random_matrix(1, 12, 2);
  const MatrixF gain = random_matrix(1, 12, 3), shift = random_matrix(1, 12, 4);
  const std::vector<float> bias = {1, 2, 3, 4, 5};
  MatrixF folded = W;
  fold_gain_in_place(folded.view(), gain.row(0));
  const std::vector<float> b = shifted_bias(W.view(), shift.row(0), bias);
  for (std::size_t o = 0; o < 5; ++o) {
    double y = static_cast<double>(bias[o]);
    for (std::size_t i = 0; i < 12; ++i) {
      y += static_cast<double>(W(o, i)) *
           static_cast<double>(gain(0, i) * x(0, i) + shift(0, i));
    }
    EXPECT_NEAR(dot(folded.row(o), x.row(0)) + static_cast<double>(b[o]), y,
                1e-4);
  }
}

TEST(Rotation, CenteredOutputsHaveMeanZero) {
  MatrixF W = random_matrix(6, 4, 1);
  center_output_in_place(W.view());
  for (std::size_t i = 0; i < 4; ++i) {
    float sum = 0;
    for (std::size_t o = 0; o < 6; ++o) sum += W(o, i);
    EXPECT_NEAR(sum, 0, 1e-5f);
  }
}

TEST(Rotation, IsTheSameForTheSameSeedAndAtAnyThreadCount) {
  const Rotation a = random_rotation(64, 9), b = random_rotation(64, 9);
  EXPECT_EQ(a.signs, b.signs);
  EXPECT_NE(a.signs, random_rotation(64, 10).signs);
  MatrixF one = random_matrix(70, 64, 1), three = one;
  ThreadPool single(1), several(3);
  rotate_input_in_place(one.view(), a, single);
  rotate_input_in_place(three.view(), a, several);
  EXPECT_TRUE(std::ranges::equal(one.data(), three.data()));
}

TEST(Rotation, RefusesSizesThatDoNotMatch) {
  ThreadPool pool(1);
  MatrixF X(1, 12);
  EXPECT_THROW(rotate_vectors_in_place(X.view(), {.block = 8}, pool), Error);
  EXPECT_THROW(rotate_vectors_in_place(X.view(), {}, pool), Error);
  EXPECT_THROW(
      rotate_vectors_in_place(X.view(), {.block = 4, .signs = {1, 1}}, pool),
      Error);
}

}  // namespace
}  // namespace llmpress

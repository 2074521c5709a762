#include "distill/optimizers/gradient_norm.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/distill/optimizers/optimizer_inputs.h"

namespace llmpress {
namespace {

using Spans = std::vector<std::span<const float>>;

TEST(GradientNorm, OfThreeFourAndTwelve) {
  ThreadPool pool(1);
  const std::vector<float> a{3, 4}, b{12}, none;
  const Spans spans{a, none, b};
  EXPECT_EQ(gradient_norm(spans, pool), 13);
  EXPECT_EQ(gradient_norm({}, pool), 0);
}

TEST(GradientNorm, AgreesWithTorch) {
  ThreadPool pool(1);
  const auto a = testing::wave(5, 1, 3), b = testing::wave(3, 2, 4);
  const Spans spans{a, b};
  const double norm = gradient_norm(spans, pool);
  EXPECT_NEAR(norm, 6.31750154, 1e-6);
  // clip_grad_norm_ to 1 leaves 0.399590313 of the first element.
  EXPECT_NEAR(a[0] * clip_factor(norm, 1), 0.399590313, 1e-7);
}

TEST(GradientNorm, ClipsToTheLargestNormAndNeverEnlarges) {
  EXPECT_FLOAT_EQ(clip_factor(4, 1), 0.25f);
  EXPECT_EQ(clip_factor(0.5, 1), 1);
  EXPECT_EQ(clip_factor(0, 1), 1);
  EXPECT_EQ(clip_factor(1e9, 0), 1);
}

TEST(GradientNorm, IsTheSameAtAnyThreadCount) {
  Rng rng(1);
  const auto a = testing::noise(200003, rng), b = testing::noise(65537, rng);
  const Spans spans{a, b};
  ThreadPool one(1), three(3);
  const double norm = gradient_norm(spans, one);
  EXPECT_EQ(norm, gradient_norm(spans, three));
  double squares = 0;
  for (const auto span : spans) {
    for (const float x : span) squares += double{x} * double{x};
  }
  EXPECT_NEAR(norm, std::sqrt(squares), 1e-9);
}

TEST(GradientNorm, IsFiniteExactlyWhereTheGradientsAre) {
  ThreadPool pool(1);
  std::vector<float> a(100, 3e38f);
  const Spans spans{a};
  EXPECT_NEAR(gradient_norm(spans, pool), 3e39, 1e33);
  a[57] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(gradient_norm(spans, pool)));
  a[57] = std::nanf("");
  EXPECT_FALSE(std::isfinite(gradient_norm(spans, pool)));
  a[57] = 0;
  a[99] = std::nanf("");
  EXPECT_FALSE(std::isfinite(gradient_norm(spans, pool)));
}

}  // namespace
}  // namespace llmpress

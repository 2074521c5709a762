#include "compress/core/optimizers/adamw.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/distill/optimizers/optimizer_inputs.h"

namespace llmpress {
namespace {

TEST(AdamW, TakesAStepOfTheLearningRateFirst) {
  // m = g / 10, v = g^2 / 1000; both corrections undo that: w - lr g / |g|.
  ThreadPool pool(1);
  std::vector<float> w{1, 1};
  const std::vector<float> g{4, -0.5f};
  AdamWState state;
  adamw_step({}, 1, 0.25f, 0, 1, g, w, state, pool);
  EXPECT_NEAR(w[0], 0.75, 1e-6);
  EXPECT_NEAR(w[1], 1.25, 1e-6);
  EXPECT_FLOAT_EQ(state.first_moment[0], 0.4f);
  EXPECT_FLOAT_EQ(state.second_moment[0], 0.016f);
}

// lr 0.01, betas (0.9, 0.99), weight decay 0.1.
TEST(AdamW, AgreesWithTorch) {
  const std::vector<std::vector<double>> wanted{
      {0.830629528, 0.980673194, 0.68478775, 0.0515390821, -0.601246059},
      {0.8220191, 0.981279254, 0.693009496, 0.0614978895, -0.591412723},
      {0.820623994, 0.98625499, 0.701672673, 0.0700420141, -0.586934865}};
  ThreadPool pool(1);
  // Clipping to half and a gradient of twice the size are the same.
  for (const float factor : {1.0f, 0.5f}) {
    std::vector<float> w = testing::wave(5, 1, 1);
    AdamWState state;
    for (std::size_t step = 1; step <= 3; ++step) {
      const auto g =
          testing::wave(5, 1 + static_cast<double>(step), 0.5 / double{factor});
      adamw_step({.beta2 = 0.99}, step, 0.01f, 0.1f, factor, g, w, state, pool);
      for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_NEAR(w[i], wanted[step - 1][i], 2e-7);
      }
    }
  }
}

TEST(AdamW, IsTheSameAtAnyThreadCount) {
  Rng rng(1);
  const std::size_t n = 3 * 65536 + 17;
  const auto start = testing::noise(n, rng), g = testing::noise(n, rng);
  std::vector<std::vector<float>> results;
  for (const std::size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    AdamWState state;
    std::vector<float> w = start;
    adamw_step({}, 1, 0.01f, 0.1f, 1, g, w, state, pool);
    adamw_step({}, 2, 0.01f, 0.1f, 0.5f, g, w, state, pool);
    results.push_back(w);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_NE(results[0], start);
}

TEST(AdamW, RefusesTheStateOfAnotherTensor) {
  ThreadPool pool(1);
  std::vector<float> w(4);
  const std::vector<float> g(4);
  AdamWState state{std::vector<float>(4), std::vector<float>(3)};
  EXPECT_THROW(adamw_step({}, 2, 1, 0, 1, g, w, state, pool), Error);
}

}  // namespace
}  // namespace llmpress

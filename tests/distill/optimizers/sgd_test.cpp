#include "distill/optimizers/sgd.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "tests/distill/optimizers/optimizer_inputs.h"

namespace llmpress {
namespace {

// lr 0.1, weight decay 0.01, three steps.
void expect_torch(const SgdConfig& config, const std::vector<double>& wanted) {
  ThreadPool pool(1);
  for (const float factor : {1.0f, 0.5f}) {
    std::vector<float> w = testing::wave(5, 1, 1);
    SgdState state;
    for (int step = 0; step < 3; ++step) {
      const auto g = testing::wave(5, 2 + step, 0.5 / double{factor});
      sgd_step(config, 0.1f, 0.01f, factor, g, w, state, pool);
    }
    for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(w[i], wanted[i], 2e-7);
  }
}

TEST(Sgd, AddsUpMomentum) {
  // d = 1: b = 1, then 1.5; w = -1 - 1.5. Nesterov: -1.5 - 1.75.
  ThreadPool pool(1);
  const std::vector<float> g{1};
  for (const bool nesterov : {false, true}) {
    std::vector<float> w{0};
    SgdState state;
    const SgdConfig config{.momentum = 0.5, .nesterov = nesterov};
    sgd_step(config, 1, 0, 1, g, w, state, pool);
    sgd_step(config, 1, 0, 1, g, w, state, pool);
    EXPECT_EQ(w[0], nesterov ? -3.25f : -2.5f);
    EXPECT_EQ(state.momentum, std::vector<float>{1.5f});
  }
}

TEST(Sgd, AgreesWithTorch) {
  expect_torch({},
               {0.824366212, 1.04382801, 0.7723611, 0.137640685, -0.561814249});
  expect_torch({.momentum = 0.9}, {0.738157988, 1.02858162, 0.835247219,
                                   0.249082938, -0.454228908});
  expect_torch(
      {.momentum = 0.9, .nesterov = true},
      {0.731623769, 1.07711852, 0.916027546, 0.324114472, -0.42023465});
}

TEST(Sgd, IsTheSameAtAnyThreadCount) {
  Rng rng(1);
  const std::size_t n = 3 * 65536 + 17;
  const auto start = testing::noise(n, rng), g = testing::noise(n, rng);
  std::vector<std::vector<float>> results;
  for (const std::size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    SgdState state;
    std::vector<float> w = start;
    for (int step = 0; step < 2; ++step) {
      sgd_step({.momentum = 0.9}, 0.01f, 0.1f, 1, g, w, state, pool);
    }
    results.push_back(w);
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST(Sgd, RefusesTheStateOfAnotherTensorOrConfig) {
  ThreadPool pool(1);
  std::vector<float> w(4);
  const std::vector<float> g(4);
  SgdState state{std::vector<float>(3)};
  EXPECT_THROW(sgd_step({.momentum = 0.9}, 1, 0, 1, g, w, state, pool), Error);
  EXPECT_THROW(sgd_step({}, 1, 0, 1, g, w, state, pool), Error);
}

}  // namespace
}  // namespace llmpress

#include "distill/optimizers/adamw8bit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "distill/optimizers/dynamic_map.h"
#include "tests/distill/optimizers/optimizer_inputs.h"

namespace llmpress {
namespace {

// Values of create_dynamic_map() of bitsandbytes 0.50.2.
TEST(DynamicMap, IsThatOfBitsandbytes) {
  struct Entry {
    std::size_t code;
    float value;
  };
  const auto expect = [](const DynamicMap& map, std::vector<Entry> entries) {
    for (const Entry& e : entries) {
      EXPECT_NEAR(map.value(static_cast<std::uint8_t>(e.code)), e.value,
                  2e-7f * std::abs(e.value))
          << e.code;
    }
  };
  expect(signed_dynamic_map(), {{0, -0.992968738f},
                                {1, -0.978906274f},
                                {60, -0.149218753f},
                                {126, -5.50000038e-07f},
                                {127, 0},
                                {128, 5.50000038e-07f},
                                {129, 3.25000019e-06f},
                                {131, 2.12499981e-05f},
                                {192, 0.12109375f},
                                {254, 0.992968738f},
                                {255, 1}});
  expect(unsigned_dynamic_map(), {{0, 0},
                                  {1, 3.2500003e-07f},
                                  {2, 7.7499999e-07f},
                                  {60, 0.00929687452f},
                                  {126, 0.0992968753f},
                                  {127, 0.103515625f},
                                  {200, 0.616796851f},
                                  {254, 0.996484399f},
                                  {255, 1}});
}

// Every value, every number beside a boundary and many between.
TEST(DynamicMap, FindsTheNearestValue) {
  for (const DynamicMap* map :
       {&signed_dynamic_map(), &unsigned_dynamic_map()}) {
    std::vector<float> values, x;
    for (int c = 0; c < 256; ++c) {
      values.push_back(map->value(static_cast<std::uint8_t>(c)));
      EXPECT_EQ(map->code(values.back()), c);
    }
    for (std::size_t c = 0; c < 255; ++c) {
      const float half = (values[c] + values[c + 1]) / 2;
      x.insert(x.end(), {half * (1 - 1e-5f), half, half * (1 + 1e-5f)});
    }
    Rng rng(1);
    for (int i = 0; i < 5000; ++i) {
      const double sign = values[0] < 0 && rng.below(2) == 0 ? -1 : 1;
      x.push_back(
          static_cast<float>(sign * std::pow(10.0, -9 * rng.uniform())));
    }
    for (const float number : x) {
      double nearest = 2;
      for (const float v : values) {
        nearest = std::min(nearest, std::abs(double{v} - double{number}));
      }
      const auto found = double{map->value(map->code(number))};
      // Boundaries are rounded to float.
      EXPECT_LE(std::abs(found - double{number}),
                nearest + 2e-7 * std::abs(double{number}))
          << number;
    }
  }
}

TEST(AdamW8Bit, StoresMomentsWithinTheMapsPrecision) {
  ThreadPool pool(1);
  Rng rng(2);
  const std::size_t n = 700;  // two blocks and a part
  const auto g = testing::noise(n, rng);
  std::vector<float> a(n), b(n);
  AdamWState exact;
  AdamW8BitState state;
  adamw_step({}, 1, 0.01f, 0.1f, 1, g, a, exact, pool);
  adamw8bit_step({}, 1, 0.01f, 0.1f, 1, g, b, state, pool);
  EXPECT_EQ(a, b);  // the first step rounds nothing before it moves the weight
  ASSERT_EQ(state.first_absmax.size(), 3u);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t block = i / 256;
    const float m = signed_dynamic_map().value(state.first_codes[i]) *
                    state.first_absmax[block];
    // Half a step of the map: 0.9 / 64 / 2 of the largest, and in each lower
    // decade at most a quarter of the value.
    EXPECT_NEAR(m, exact.first_moment[i],
                std::max(0.0071f * state.first_absmax[block],
                         0.25f * std::abs(exact.first_moment[i])));
  }
}

// f(w) = 1/2 sum a_i (w_i - c_i)^2 with curvatures of 0.1 to 10.
TEST(AdamW8Bit, StaysCloseToAdamWOnAQuadratic) {
  ThreadPool pool(1);
  Rng rng(3);
  const std::size_t n = 1000;
  const auto c = testing::noise(n, rng);
  std::vector<float> curvature(n), exact(n), rounded(n), g(n);
  for (float& a : curvature) {
    a = static_cast<float>(std::pow(10.0, 2 * rng.uniform() - 1));
  }
  AdamWState state;
  AdamW8BitState state8;
  const auto gradient = [&](const std::vector<float>& w) {
    for (std::size_t i = 0; i < n; ++i) g[i] = curvature[i] * (w[i] - c[i]);
    return std::span<const float>(g);
  };
  for (std::size_t step = 1; step <= 100; ++step) {
    adamw_step({}, step, 0.02f, 0, 1, gradient(exact), exact, state, pool);
    adamw8bit_step({}, step, 0.02f, 0, 1, gradient(rounded), rounded, state8,
                   pool);
  }
  double apart = 0, way = 0, left = 0, start = 0;
  for (std::size_t i = 0; i < n; ++i) {
    apart += std::pow(double{rounded[i]} - double{exact[i]}, 2);
    way += std::pow(double{exact[i]}, 2);
    left += std::pow(double{rounded[i]} - double{c[i]}, 2);
    start += std::pow(double{c[i]}, 2);
  }
  // 0.056 here; 0.042 to 0.055 in a model of such runs in torch over six other
  // seeds, where v rounded to 0 as in bitsandbytes gave 0.047 to 0.24, and 30
  // for one seed.
  EXPECT_LT(std::sqrt(apart / way), 0.1);
  EXPECT_GT(apart, 0);
  EXPECT_LT(left, 0.05 * start);
}

TEST(AdamW8Bit, DoesNotRunAwayWhereAGradientBecomesZero) {
  ThreadPool pool(1);
  std::vector<float> w(2), before;
  AdamW8BitState state;
  adamw8bit_step({}, 1, 0.01f, 0, 1, std::vector<float>{1, 1e-6f}, w, state,
                 pool);
  EXPECT_EQ(state.second_codes[1], 1);
  before = w;
  adamw8bit_step({}, 2, 0.01f, 0, 1, std::vector<float>{1, 0}, w, state, pool);
  EXPECT_LT(std::abs(w[1] - before[1]), 0.01f);
}

TEST(AdamW8Bit, IsTheSameAtAnyThreadCount) {
  Rng rng(4);
  const std::size_t n = 3 * 64 * 256 + 17;
  const auto start = testing::noise(n, rng), g = testing::noise(n, rng);
  std::vector<std::vector<float>> results;
  for (const std::size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    AdamW8BitState state;
    std::vector<float> w = start;
    adamw8bit_step({}, 1, 0.01f, 0.1f, 1, g, w, state, pool);
    adamw8bit_step({}, 2, 0.01f, 0.1f, 0.5f, g, w, state, pool);
    results.push_back(w);
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST(AdamW8Bit, KeepsBlocksWithoutGradientsAndRefusesOtherStates) {
  ThreadPool pool(1);
  std::vector<float> w(300, 1.0f);
  const std::vector<float> g(300);
  AdamW8BitState state;
  adamw8bit_step({}, 1, 0.01f, 0, 1, g, w, state, pool);
  adamw8bit_step({}, 2, 0.01f, 0, 1, g, w, state, pool);
  for (const float x : w) EXPECT_EQ(x, 1);
  state.second_absmax.pop_back();
  EXPECT_THROW(adamw8bit_step({}, 3, 0.01f, 0, 1, g, w, state, pool), Error);
}

}  // namespace
}  // namespace llmpress

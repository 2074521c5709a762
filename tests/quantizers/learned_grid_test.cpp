#include "quantizers/learned_grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "quantizers/rtn.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

struct Gradient {
  MatrixF weight;
  std::vector<float> scales, zeros;
};

Gradient gradient(const LearnedGrid& grid, const MatrixF& W, const MatrixF& D,
                  std::size_t zeros, std::size_t threads = 2) {
  ThreadPool pool(threads);
  Gradient g{D, std::vector<float>(grid.groups().size()),
             std::vector<float>(zeros)};
  grid.differentiate(W.view(), g.weight.view(), g.scales, g.zeros, pool);
  return g;
}

MatrixF rounded(const LearnedGrid& grid, const MatrixF& W) {
  ThreadPool pool(2);
  MatrixF W_q(W.rows(), W.cols());
  grid.round_into(W.view(), W_q.view(), pool);
  return W_q;
}

bool same(const MatrixF& a, const MatrixF& b) {
  return std::ranges::equal(a.data(), b.data());
}

void expect_values(std::span<const float> found,
                   const std::vector<float>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    EXPECT_NEAR(found[k], wanted[k], 2e-6f) << k;
  }
}

// s = 0.5, z = 1: u + z = 1.2, 2.8, 0.4, 5 against codes 0..3.
TEST(LearnedGrid, RoundsAndDifferentiatesAGroupByHand) {
  const MatrixF W({0.1f, 0.9f, -0.3f, 2.0f}, 1, 4);
  GroupedIntWeight start{.out = 1, .in = 4, .bits = 2, .group_size = 4};
  start.codes = {0};
  start.scales = {0.5f};
  start.zeros = {1};
  LearnedGrid grid(start);
  expect_values(rounded(grid, W).data(), {0, 1, -0.5f, 1});
  const Gradient g = gradient(grid, W, MatrixF({1, 2, 3, 4}, 1, 4), 1);
  expect_values(g.weight.data(), {1, 2, 3, 0});
  // 1 (0 - 0.2) + 2 (2 - 1.8) + 3 (-1 + 0.6) + 4 (3 - 1) = 7, over sqrt(4 * 3).
  expect_values(g.scales, {7 / std::sqrt(12.0f)});
  expect_values(g.zeros, {-0.5f * 4 / std::sqrt(12.0f)});
}

// Symmetric codes -4..3: Q_P = 3; 0.5 is clamped above, -0.5 below.
TEST(LearnedGrid, DifferentiatesASymmetricGridByHand) {
  const MatrixF W({0.5f, -0.5f, 0.12f}, 1, 3);
  GroupedIntWeight start{
      .out = 1, .in = 3, .bits = 3, .group_size = 3, .symmetric = true};
  start.codes = {0};
  start.scales = {0.1f};
  LearnedGrid grid(start);
  EXPECT_TRUE(grid.zeros().empty());
  expect_values(rounded(grid, W).data(), {0.3f, -0.4f, 0.1f});
  const Gradient g = gradient(grid, W, MatrixF({1, 10, 100}, 1, 3), 0);
  expect_values(g.weight.data(), {0, 0, 100});
  EXPECT_NEAR(g.scales[0], (3 - 40 + 100 * (1 - 1.2f)) / std::sqrt(9.0f),
              1e-4f);
}

struct Case {
  const char* name;
  QuantizeConfig config;
};

std::vector<Case> cases() {
  const auto ints = [](int bits, bool symmetric) {
    return QuantizeConfig{
        .weights = {.bits = bits, .group_size = 8, .symmetric = symmetric}};
  };
  return {
      {"int2", ints(2, false)},
      {"int3 symmetric", ints(3, true)},
      {"int4", ints(4, false)},
      {"int8 symmetric", ints(8, true)},
      {"int8 rows, integer inputs",
       {.weights = {.bits = 8, .group_size = -1},
        .input = {.kind = ActivationQuant::Kind::kInt}}},
      {"fp8 rows",
       {.weights = {.type = WeightType::kFp8E4M3, .group_size = -1}}},
      {"fp8 whole",
       {.weights = {.type = WeightType::kFp8E5M2, .group_size = 0}}},
      {"fp8 blocks",
       {.weights = {.type = WeightType::kFp8E4M3,
                    .block_rows = 4,
                    .block_cols = 8}}},
      {"nf4", {.weights = {.type = WeightType::kNf4, .group_size = 8}}},
      {"fp4", {.weights = {.type = WeightType::kFp4, .group_size = 8}}},
  };
}

TEST(LearnedGrid, BeginsAsTheRoundingThatItStartsFrom) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(11, 32, 3);
  for (const Case& c : cases()) {
    const PackedWeight start = round_to_nearest(W.view(), c.config, pool);
    EXPECT_TRUE(same(rounded(LearnedGrid(start), W), dequantize(start)))
        << c.name;
  }
}

TEST(LearnedGrid, PacksWhatItRoundsTo) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(11, 32, 3);
  for (const Case& c : cases()) {
    LearnedGrid grid(round_to_nearest(W.view(), c.config, pool));
    for (float& s : grid.scales()) s *= 0.83f;
    for (float& z : grid.zeros()) z += 0.7f;
    grid.settle();
    const PackedWeight packed = grid.pack(W.view(), pool);
    EXPECT_NO_THROW(check(packed, c.name));
    EXPECT_TRUE(same(dequantize(packed), rounded(grid, W))) << c.name;
  }
}

// Where nothing is inside of the range, W_q is linear in s and z.
TEST(LearnedGrid, FollowsDifferencesWhereWeightsAreClamped) {
  ThreadPool pool(2);
  const MatrixF W({40, -35, 28, 60, -50, 33, 41, -29}, 1, 8);
  const MatrixF D({1, -2, 0.5f, 0.25f, -1.5f, 3, -0.75f, 1.25f}, 1, 8);
  for (const Case& c : cases()) {
    if (c.config.weights.group_size != 8) continue;
    QuantizeConfig config = c.config;
    config.weights.scale_dtype = DType::kF32;
    LearnedGrid grid(round_to_nearest(W.view(), config, pool));
    grid.scales()[0] = 0.1f;
    grid.settle();
    const Gradient g = gradient(grid, W, D, grid.zeros().size());
    for (const float d : g.weight.data()) EXPECT_EQ(d, 0) << c.name;
    const auto loss = [&](float s) {
      grid.scales()[0] = s;
      grid.settle();
      const MatrixF W_q = rounded(grid, W);
      double sum = 0;
      for (std::size_t k = 0; k < 8; ++k) {
        sum += static_cast<double>(D.data()[k]) * W_q.data()[k];
      }
      return sum;
    };
    const double difference = (loss(0.11f) - loss(0.09f)) / 0.02;
    double largest = 1;  // Q_P
    if (config.weights.type == WeightType::kInt) {
      largest = (1 << config.weights.bits) - 1 -
                (config.weights.symmetric ? 1 << (config.weights.bits - 1) : 0);
    }
    EXPECT_NEAR(g.scales[0], difference / std::sqrt(8 * largest),
                2e-3 * (1 + std::abs(difference)))
        << c.name;
  }
}

TEST(LearnedGrid, GivesTheSameBitsAtAnyThreadCount) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(45, 64, 5), D = random_matrix(45, 64, 6);
  for (const Case& c : cases()) {
    LearnedGrid grid(round_to_nearest(W.view(), c.config, pool));
    for (float& s : grid.scales()) s *= 0.7f;
    grid.settle();
    const std::size_t zeros = grid.zeros().size();
    const Gradient one = gradient(grid, W, D, zeros, 1);
    const Gradient three = gradient(grid, W, D, zeros, 3);
    EXPECT_TRUE(same(one.weight, three.weight)) << c.name;
    EXPECT_EQ(one.scales, three.scales) << c.name;
    EXPECT_EQ(one.zeros, three.zeros) << c.name;
  }
}

TEST(LearnedGrid, KeepsScalesPositiveAndZeroPointsOnTheGrid) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(2, 16, 8);
  LearnedGrid grid(round_to_nearest(
      W.view(), {.weights = {.bits = 2, .group_size = 8}}, pool));
  grid.scales()[0] = -3;
  grid.zeros()[1] = 9;
  grid.settle();
  EXPECT_GT(grid.scales()[0], 0);
  EXPECT_EQ(grid.zeros()[1], 3);
  EXPECT_NO_THROW(check(grid.pack(W.view(), pool), "w"));
}

TEST(LearnedGrid, RefusesScalesThatAreNoFloats) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(2, 64, 8);
  for (const WeightType type : {WeightType::kMxfp4, WeightType::kNvfp4}) {
    const PackedWeight start =
        round_to_nearest(W.view(), {.weights = {.type = type}}, pool);
    EXPECT_THROW(LearnedGrid{start}, Error);
  }
  const PackedWeight nested =
      round_to_nearest(W.view(),
                       {.weights = {.type = WeightType::kNf4,
                                    .group_size = 64,
                                    .double_quant = true}},
                       pool);
  EXPECT_THROW(LearnedGrid{nested}, Error);
}

}  // namespace
}  // namespace llmpress

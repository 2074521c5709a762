#include "compress/kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

TEST(Rope, TurnsHalvesAndPairsAsByHand) {
  // One frequency pi/2 and one of 0: position 1 turns (a, b) to (-b, a).
  const double frequencies[] = {std::numbers::pi / 2, 0};
  const RopeTables tables = make_rope_tables(3, frequencies);
  ThreadPool pool(1);
  const std::vector<std::uint32_t> positions{1};
  MatrixF X({1, 2, 3, 4, 9}, 1, 5);  // the fifth coordinate stays
  apply_rope_in_place(X.view(), 5, positions, tables, RopeStyle::kHalves, pool);
  const float halves[] = {-3, 2, 1, 4, 9};
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(X(0, i), halves[i], 1e-6);
  X = MatrixF({1, 2, 3, 4, 9}, 1, 5);
  apply_rope_in_place(X.view(), 5, positions, tables, RopeStyle::kPairs, pool);
  const float pairs[] = {-2, 1, 3, 4, 9};
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(X(0, i), pairs[i], 1e-6);
}

TEST(Rope, ScalingMultipliesTheTables) {
  const double frequencies[] = {0.5};
  const RopeTables tables = make_rope_tables(4, frequencies, 1.25);
  EXPECT_FLOAT_EQ(tables.cos(3, 0), static_cast<float>(1.25 * std::cos(1.5)));
  EXPECT_FLOAT_EQ(tables.sin(3, 0), static_cast<float>(1.25 * std::sin(1.5)));
}

TEST(Rope, DotProductsDependOnTheDistanceOfPositionsAlone) {
  Rng rng(1);
  std::vector<double> frequencies;
  for (int j = 0; j < 8; ++j) frequencies.push_back(std::pow(10000, -j / 8.0));
  const RopeTables tables = make_rope_tables(200, frequencies);
  ThreadPool pool(2);
  const MatrixF head = testing::random_matrix(2, 16, rng);
  for (const RopeStyle style : {RopeStyle::kHalves, RopeStyle::kPairs}) {
    double first = 0;
    for (const std::uint32_t shift : {0u, 1u, 77u, 150u}) {
      MatrixF X = head;
      apply_rope_in_place(X.view(), 16,
                          std::vector<std::uint32_t>{shift + 30, shift}, tables,
                          style, pool);
      double dot = 0;
      for (std::size_t i = 0; i < 16; ++i) {
        dot += double{X(0, i)} * double{X(1, i)};
      }
      if (shift == 0) first = dot;
      EXPECT_NEAR(dot, first, 1e-5);
    }
  }
}

}  // namespace
}  // namespace llmpress

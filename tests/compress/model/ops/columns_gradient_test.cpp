// Backward of what moves columns or turns them, against differences.
#include <gtest/gtest.h>

#include "compress/model/ops/columns.h"
#include "compress/model/ops/rope.h"
#include "tests/compress/model/ops/gradient_check.h"

namespace llmpress {
namespace {

using testing::expect_gradients;
using testing::GradientProblem;
using testing::random_value;

TEST(SplitGradient, IsThatOfDifferences) {
  Rng rng(1);
  expect_gradients(SplitOp{.groups = 1, .widths = {3, 2, 4}},
                   {.inputs = {random_value(4, 9, rng)}, .outputs = 3});
  expect_gradients(SplitOp{.groups = 3, .widths = {2, 1}},
                   {.inputs = {random_value(40, 9, rng)}, .outputs = 2});
}

TEST(JoinGradient, IsThatOfDifferences) {
  Rng rng(2);
  expect_gradients(
      JoinOp{.groups = 1, .widths = {3, 2}},
      {.inputs = {random_value(40, 3, rng), random_value(40, 2, rng)}});
  // The second is one group, repeated in each of the three.
  expect_gradients(
      JoinOp{.groups = 3, .widths = {2, 4}},
      {.inputs = {random_value(5, 6, rng), random_value(5, 4, rng)}});
}

TEST(JoinGradient, OfAValueThatIsReadTwiceIsTheSum) {
  Activations value{.rows = MatrixF({1, 2}, 1, 2)};
  Activations out{.rows = MatrixF(1, 4)};
  const MatrixF d_out({1, 10, 100, 1000}, 1, 4);
  MatrixF d({0.5f, 0.25f}, 1, 2);
  BlockGradients own;
  ThreadPool pool(1);
  OpContext context;
  context.pool = &pool;
  const OpGradients gradients{.in = {&value, &value},
                              .out = {&out},
                              .d_out = {&d_out},
                              .d_in = {&d, &d},
                              .own = &own};
  backward(JoinOp{.groups = 1, .widths = {2, 2}}, context, gradients);
  EXPECT_EQ(d(0, 0), 101.5f);
  EXPECT_EQ(d(0, 1), 1010.25f);
}

TEST(LayerColumnsGradient, IsThatOfDifferences) {
  Rng rng(3);
  expect_gradients(LayerColumnsOp{.width = 3},
                   {.inputs = {random_value(4, 12, rng)}, .layer = 2});
  expect_gradients(LayerColumnsOp{.width = 1},
                   {.inputs = {random_value(3, 2, rng)}, .layer = 0});
}

// Two heads of 6, of which the first 4 turn; the attention factor multiplies
// what goes back, too.
TEST(RopeGradient, IsThatOfDifferences) {
  Rng rng(4);
  const auto check = [&](RopeConfig config, const RopeOp& op, std::size_t width,
                         std::vector<std::size_t> sequences) {
    std::size_t tokens = 0;
    for (const std::size_t rows : sequences) tokens += rows;
    expect_gradients(op, {.inputs = {random_value(tokens, width, rng)},
                          .sequences = std::move(sequences),
                          .ropes = {std::make_shared<RopePositions>(config)}});
  };
  const RopeConfig plain{.dim = 4, .theta = 10};
  const RopeConfig yarn{.dim = 4,
                        .theta = 10,
                        .scaling = RopeScaling::kYarn,
                        .factor = 4,
                        .attention_factor = 1.3,
                        .original_max_positions = 16};
  for (const RopeStyle style : {RopeStyle::kHalves, RopeStyle::kPairs}) {
    const RopeOp op{.rope = 0, .head_dim = 6, .style = style};
    check(plain, op, 12, {5, 3});
    check(yarn, op, 6, {1, 4, 12});
  }
}

}  // namespace
}  // namespace llmpress

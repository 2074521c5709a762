#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/model/ops/convolution.h"
#include "compress/model/ops/delta_rule.h"
#include "compress/model/ops/linear_attention.h"
#include "compress/model/ops/rg_lru.h"
#include "compress/model/ops/rwkv.h"
#include "compress/model/ops/selective_scan.h"
#include "compress/model/ops/state_space.h"
#include "tests/compress/model/ops/gradient_check.h"

namespace llmpress {
namespace {

using testing::expect_gradients;
using testing::GradientProblem;
using testing::random_value;

std::vector<float> random_vector(std::size_t size, Rng& rng, double scale = 1,
                                 double mean = 0) {
  std::vector<float> v(size);
  for (float& x : v) x = static_cast<float>(mean + rng.normal() * scale);
  return v;
}

// Two sequences of different lengths, one of them a single stretch of states.
GradientProblem problem(const std::vector<std::size_t>& widths,
                        std::vector<std::vector<float>> parameters, Rng& rng,
                        std::vector<std::size_t> sequences = {7, 3}) {
  GradientProblem made{.parameters = std::move(parameters),
                       .sequences = std::move(sequences)};
  std::size_t tokens = 0;
  for (const std::size_t rows : made.sequences) tokens += rows;
  for (const std::size_t width : widths) {
    made.inputs.push_back(random_value(tokens, width, rng));
  }
  return made;
}

TEST(LinearAttentionGradient, IsThatOfDifferences) {
  Rng rng(1);
  expect_gradients(LinearAttentionOp{.heads = 2, .head_dim = 3},
                   problem({6, 6, 6}, {{0.3f, 0.05f}}, rng));
  expect_gradients(LinearAttentionOp{.heads = 1, .head_dim = 9},
                   problem({9, 9, 9}, {{0.2f}}, rng, {1, 6, 2}));
}

TEST(StateSpaceGradient, IsThatOfDifferences) {
  Rng rng(2);
  const auto check = [&](std::size_t heads, std::size_t dim, std::size_t groups,
                         std::size_t state) {
    expect_gradients(
        StateSpaceOp{.heads = heads,
                     .head_dim = dim,
                     .groups = groups,
                     .state = state,
                     .A_log = 0,
                     .D = 1,
                     .dt_bias = 2},
        problem({heads * dim, groups * state, groups * state, heads},
                {random_vector(heads, rng, 0.5), random_vector(heads, rng),
                 random_vector(heads, rng)},
                rng));
  };
  check(4, 3, 2, 5);
  check(3, 2, 1, 9);
  check(2, 1, 2, 2);
}

// softplus(2) = 2.13, softplus(0) = 0.69, softplus(-2) = 0.13.
TEST(StateSpaceGradient, EndsAtTheLimitsOfTime) {
  Rng rng(3);
  GradientProblem limited =
      problem({2, 3, 3, 2}, {{0.1f, -0.4f}, {1, 2}, {0.05f, -0.05f}}, rng);
  float* const dt = limited.inputs[3].rows.data().data();
  for (std::size_t i = 0; i < limited.inputs[3].rows.size(); ++i) {
    dt[i] = static_cast<float>(i % 3) * 2 - 2;
  }
  expect_gradients(StateSpaceOp{.heads = 2,
                                .head_dim = 1,
                                .groups = 1,
                                .state = 3,
                                .A_log = 0,
                                .D = 1,
                                .dt_bias = 2,
                                .dt_min = 0.3f,
                                .dt_max = 1.5f},
                   limited);
}

TEST(SelectiveScanGradient, IsThatOfDifferences) {
  Rng rng(4);
  const auto check = [&](std::size_t channels, std::size_t state) {
    expect_gradients(
        SelectiveScanOp{
            .channels = channels, .state = state, .A_log = 0, .D = 1},
        problem({channels, channels, state, state},
                {random_vector(channels * state, rng, 0.5),
                 random_vector(channels, rng)},
                rng));
  };
  check(6, 3);
  check(3, 5);
}

TEST(DeltaRuleGradient, IsThatOfDifferences) {
  Rng rng(5);
  const auto check = [&](std::size_t key_heads, std::size_t key_dim,
                         std::size_t value_heads, std::size_t value_dim) {
    expect_gradients(
        DeltaRuleOp{.key_heads = key_heads,
                    .key_dim = key_dim,
                    .value_heads = value_heads,
                    .value_dim = value_dim,
                    .A_log = 0,
                    .dt_bias = 1},
        problem({key_heads * key_dim, key_heads * key_dim,
                 value_heads * value_dim, value_heads, value_heads},
                {random_vector(value_heads, rng, 0.5),
                 random_vector(value_heads, rng)},
                rng));
  };
  check(2, 3, 4, 5);
  check(1, 4, 1, 8);
}

// ((i seed + 3) mod 17 - 8) / 8, as the reference was given.
std::vector<float> reference_values(std::size_t size, std::size_t seed) {
  std::vector<float> v;
  for (std::size_t i = 0; i < size; ++i) {
    v.push_back((static_cast<float>((i * seed + 3) % 17) - 8) / 8);
  }
  return v;
}

Activations reference_input(std::size_t cols, std::size_t seed) {
  return {.rows = MatrixF(reference_values(4 * cols, seed), 4, cols)};
}

template <class Op>
void expect_reference(const Op& op, const GradientProblem& problem,
                      const std::vector<float>& expected) {
  const auto found = testing::GradientCheck(op, problem).gradients();
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], 2e-6) << "gradient " << i;
  }
}

// By torch.autograd in double, through the recurrence token by token.
TEST(SelectiveScanGradient, IsThatOfTorch) {
  expect_reference(
      SelectiveScanOp{.channels = 2, .state = 2, .A_log = 0, .D = 1},
      {.inputs = {reference_input(2, 5), reference_input(2, 7),
                  reference_input(2, 3), reference_input(2, 11)},
       .parameters = {reference_values(4, 13), reference_values(2, 2)},
       .sequences = {3, 1},
       .factors = {reference_input(2, 6).rows}},
      // x, dt, B, C; A_log, D
      {0.347016f,  -0.110537f, -0.646557f, 0.30412f,   0.030268f,  -0.063887f,
       0.108076f,  -0.091625f, 0.022166f,  0,          -0.041476f, -0.075619f,
       -0.032659f, 0.0971f,    -0.083344f, -0.020687f, -0.123928f, 0.200797f,
       -0.141683f, -0.293268f, 0.066703f,  -0.013341f, 0.351863f,  -0.201065f,
       -0.104663f, -0.041865f, 0.179918f,  0.249052f,  0.084312f,  -0.264219f,
       0.201065f,  0.050266f,  -0.010612f, 0.016565f,  0.015469f,  -0.010209f,
       0.5f,       0.625f});
}

// By torch.autograd through transformers' torch_recurrent_gated_delta_rule.
TEST(DeltaRuleGradient, IsThatOfTransformers) {
  expect_reference(
      DeltaRuleOp{.key_heads = 1,
                  .key_dim = 2,
                  .value_heads = 2,
                  .value_dim = 2,
                  .A_log = 0,
                  .dt_bias = 1},
      {.inputs = {reference_input(2, 5), reference_input(2, 7),
                  reference_input(4, 3), reference_input(2, 11),
                  reference_input(2, 13)},
       .parameters = {reference_values(2, 2), reference_values(2, 9)},
       .sequences = {3, 1},
       .factors = {reference_input(4, 6).rows}},
      // q, k, v, a, b; A_log, dt_bias
      {0,          0.009449f,  0.157077f,  0.112198f,  0.422773f,  0.281847f,
       0.021718f,  0.043435f,  0.014825f,  0.037064f,  -0.002559f, 0.02047f,
       0.046156f,  0.069233f,  -0.052422f, -0.022466f, -0.223411f, -0.098527f,
       0.546534f,  -0.399462f, -0.108077f, -0.223359f, 0.087814f,  -0.10636f,
       0.246425f,  0.061606f,  -0.087771f, 0.153599f,  -0.04395f,  0.219749f,
       -0.215058f, 0,          0,          0,          -0.015303f, 0.019234f,
       0.000255f,  0.01624f,   0,          0,          0.106994f,  -0.035343f,
       0.026783f,  -0.006217f, 0.083617f,  -0.13643f,  0.005746f,  -0.037806f,
       -0.018464f, 0.049911f,  -0.015049f, 0.035474f});
}

TEST(ConvolutionGradient, IsThatOfDifferences) {
  Rng rng(6);
  const auto check = [&](std::size_t channels, ConvolutionOp op) {
    op.weight = 0;
    std::vector<std::vector<float>> parameters{
        random_vector(channels * op.kernel, rng)};
    if (op.bias) parameters.push_back(random_vector(channels, rng));
    // One sequence is shorter than the kernel of 4.
    expect_gradients(op, problem({channels}, parameters, rng));
  };
  check(5, {.kernel = 3});
  check(4, {.kernel = 4, .bias = 1, .activation = Activation::kSilu});
  check(2, {.kernel = 1, .bias = 1});
  check(3, {.kernel = 2, .activation = Activation::kTanh});
}

TEST(RgLruGradient, IsThatOfDifferences) {
  Rng rng(7);
  const auto check = [&](std::size_t width, std::size_t blocks) {
    const std::size_t unit = width / blocks;
    expect_gradients(
        RgLruOp{.width = width,
                .blocks = blocks,
                .input_weight = 0,
                .input_bias = 1,
                .recurrent_weight = 2,
                .recurrent_bias = 3,
                .decay = 4},
        problem(
            {width},
            {random_vector(width * unit, rng, 0.5), random_vector(width, rng),
             random_vector(width * unit, rng, 0.5), random_vector(width, rng),
             random_vector(width, rng, 0.5, -2)},
            rng));
  };
  check(6, 2);
  check(5, 1);
}

// Of a decay of e^-40 a token, 1 - a^2 is 0 in float, and the slope of its root
// is held at 1000.
TEST(RgLruGradient, IsFiniteWhereNothingFades) {
  const RgLruOp op{.width = 1,
                   .blocks = 1,
                   .input_weight = 0,
                   .input_bias = 1,
                   .recurrent_weight = 2,
                   .recurrent_bias = 3,
                   .decay = 4};
  GradientProblem still{.parameters = {{1}, {0}, {1}, {0}, {-40}},
                        .sequences = {3}};
  still.inputs = {{.rows = MatrixF({1, 2, 3}, 3, 1)}};
  for (const float d : testing::GradientCheck(op, still).gradients()) {
    EXPECT_TRUE(std::isfinite(d));
  }
}

TEST(TokenShiftGradient, IsThatOfDifferences) {
  Rng rng(8);
  expect_gradients(TokenShiftOp{}, problem({4}, {}, rng));
  expect_gradients(TokenShiftOp{}, problem({3}, {}, rng, {1, 5, 1}));
}

TEST(InterpolateGradient, IsThatOfDifferences) {
  Rng rng(9);
  for (const std::size_t width : {std::size_t{4}, std::size_t{300}}) {
    expect_gradients(
        InterpolateOp{.mix = 0},
        problem({width, width}, {random_vector(width, rng)}, rng, {2, 1}));
  }
}

TEST(WkvGradient, IsThatOfDifferences) {
  Rng rng(10);
  for (const std::size_t channels : {std::size_t{6}, std::size_t{5}}) {
    expect_gradients(WkvOp{.channels = channels, .decay = 0, .bonus = 1},
                     problem({channels, channels},
                             {random_vector(channels, rng, 0.5, -0.5),
                              random_vector(channels, rng)},
                             rng));
  }
}

// exp(k) is beyond float, and so is 1 / exp(k); the weights of a mean stay the
// same when all keys move together.
TEST(WkvGradient, DoesNotDependOnTheSizeOfKeys) {
  Rng rng(11);
  const WkvOp op{.channels = 4, .decay = 0, .bonus = 1};
  GradientProblem at = problem(
      {4, 4}, {random_vector(4, rng, 0.5, -0.5), random_vector(4, rng)}, rng);
  for (float& k : at.inputs[0].rows.data()) k = std::round(k * 64) / 64;
  const auto near = testing::GradientCheck(op, at).gradients();
  for (const float shift : {-256.0f, 512.0f}) {
    GradientProblem moved = at;
    for (float& k : moved.inputs[0].rows.data()) k += shift;
    const auto far = testing::GradientCheck(op, moved).gradients();
    ASSERT_EQ(far.size(), near.size());
    for (std::size_t i = 0; i < near.size(); ++i) {
      EXPECT_NEAR(far[i], near[i], 1e-4 * (1 + std::abs(near[i])));
    }
  }
}

}  // namespace
}  // namespace llmpress

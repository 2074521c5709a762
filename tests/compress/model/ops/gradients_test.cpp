// Backward of the operations of dense blocks against differences.
#include <gtest/gtest.h>

#include "compress/model/ops/attention.h"
#include "compress/model/ops/elementwise.h"
#include "compress/model/ops/norm.h"
#include "tests/compress/model/ops/gradient_check.h"

namespace llmpress {
namespace {

using testing::expect_gradients;
using testing::GradientProblem;
using testing::random_value;

constexpr Activation kActivations[] = {
    Activation::kSilu,    Activation::kGeluTanh, Activation::kGeluErf,
    Activation::kSigmoid, Activation::kSoftplus, Activation::kTanh};

std::vector<Isa> instruction_sets() {
  std::vector<Isa> all{Isa::kScalar};
  if (best_isa() != Isa::kScalar) all.push_back(best_isa());
  return all;
}

// Away from the kink at zero.
Activations without_zeros(Activations value) {
  for (float& x : value.rows.data()) x += x < 0 ? -0.2f : 0.2f;
  return value;
}

TEST(Gradients, OfActivationsAreTheirSlopes) {
  Rng rng(1);
  for (const Isa isa : instruction_sets()) {
    for (const Activation f : kActivations) {
      expect_gradients(ActivationOp{f},
                       {.inputs = {random_value(3, 19, rng)}, .isa = isa});
    }
    for (const Activation f : {Activation::kRelu, Activation::kRelu2}) {
      expect_gradients(
          ActivationOp{f},
          {.inputs = {without_zeros(random_value(3, 19, rng))}, .isa = isa});
    }
  }
}

TEST(Gradients, OfGatesReachBothSides) {
  Rng rng(2);
  for (const Isa isa : instruction_sets()) {
    for (const Activation f : kActivations) {
      expect_gradients(GateOp{f}, {.inputs = {random_value(4, 21, rng),
                                              random_value(4, 21, rng)},
                                   .isa = isa});
    }
  }
}

TEST(Gradients, OfTheClampedGateStopWhereItClamps) {
  Rng rng(3);
  GradientProblem problem{
      .inputs = {random_value(4, 8, rng, 4), random_value(4, 8, rng, 4)}};
  const ClampedGateOp op{.alpha = 1.702f, .limit = 3.0f};
  // Away from the kinks.
  for (Activations& value : problem.inputs) {
    for (float& x : value.rows.data()) {
      if (std::abs(std::abs(x) - op.limit) < 0.2f) x *= 0.8f;
    }
  }
  expect_gradients(op, problem);
}

TEST(Gradients, OfSumsAndProducts) {
  Rng rng(4);
  expect_gradients(
      AddOp{.factor = -0.7f},
      {.inputs = {random_value(5, 6, rng), random_value(5, 6, rng)}});
  expect_gradients(
      MultiplyOp{.unit = 3},
      {.inputs = {random_value(5, 6, rng), random_value(5, 2, rng)}});
}

TEST(Gradients, OfScalesReachTheirParameter) {
  Rng rng(5);
  expect_gradients(ScaleOp{.factor = 1.5f, .parameter = 0},
                   {.inputs = {random_value(5, 4, rng)},
                    .parameters = {{0.5f, -1.0f, 2.0f, 0.25f}}});
  expect_gradients(
      ScaleOp{.factor = 0.5f, .parameter = 0},
      {.inputs = {random_value(5, 4, rng)}, .parameters = {{0.75f}}});
  GradientProblem clamped{.inputs = {random_value(6, 5, rng, 2)}};
  for (float& x : clamped.inputs[0].rows.data()) {
    if (std::abs(std::abs(x) - 1) < 0.1f) x = 0.5f;
  }
  expect_gradients(ScaleOp{.factor = 1, .limit = 1}, clamped);
}

TEST(Gradients, OfPositionScalesUseEachRowsPosition) {
  Rng rng(6);
  expect_gradients(PositionScaleOp{.slope = 0.5f, .floor_positions = 2},
                   {.inputs = {random_value(7, 3, rng)}, .sequences = {4, 3}});
}

NormWeights random_norm(std::size_t width, bool bias, Rng& rng) {
  NormWeights norm{.gain = std::vector<float>(width)};
  for (float& g : norm.gain) g = static_cast<float>(1 + 0.3 * rng.normal());
  if (bias) norm.bias.assign(width, 0.25f);
  return norm;
}

TEST(Gradients, OfNormsReachGainAndBias) {
  Rng rng(7);
  for (const std::size_t rows : {3u, 150u}) {
    expect_gradients(NormOp{.kind = NormKind::kRms, .norm = 0},
                     {.inputs = {random_value(rows, 13, rng)},
                      .norms = {random_norm(13, false, rng)}});
    expect_gradients(NormOp{.kind = NormKind::kLayer, .norm = 0},
                     {.inputs = {random_value(rows, 13, rng)},
                      .norms = {random_norm(13, true, rng)}});
  }
}

TEST(Gradients, OfNormsOfHeadsSumOverTheHeads) {
  Rng rng(8);
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    // One gain for all heads, one for each, none.
    expect_gradients(NormOp{.kind = kind, .norm = 0, .unit = 4},
                     {.inputs = {random_value(5, 12, rng)},
                      .norms = {random_norm(4, false, rng)}});
    expect_gradients(NormOp{.kind = kind, .norm = 0, .unit = 4},
                     {.inputs = {random_value(5, 12, rng)},
                      .norms = {random_norm(12, false, rng)}});
    expect_gradients(NormOp{.kind = kind, .unit = 4},
                     {.inputs = {random_value(5, 12, rng)}});
  }
}

GradientProblem attention_problem(const AttentionOp& op,
                                  std::vector<std::size_t> sequences,
                                  Rng& rng) {
  std::size_t tokens = 0;
  for (const std::size_t rows : sequences) tokens += rows;
  return {.inputs = {random_value(tokens, op.heads * op.head_dim, rng),
                     random_value(tokens, op.kv_heads * op.head_dim, rng),
                     random_value(tokens, op.kv_heads * op.value_dim, rng)},
          .sequences = std::move(sequences)};
}

TEST(Gradients, OfAttentionReachQueriesKeysAndValues) {
  Rng rng(9);
  const AttentionOp op{
      .heads = 4, .kv_heads = 2, .head_dim = 3, .value_dim = 5, .scale = 0.6f};
  expect_gradients(op, attention_problem(op, {7, 1, 4}, rng));
  const AttentionOp windowed{.heads = 2,
                             .kv_heads = 1,
                             .head_dim = 4,
                             .value_dim = 4,
                             .scale = 0.5f,
                             .window = 3};
  expect_gradients(windowed, attention_problem(windowed, {9}, rng));
  AttentionOp chunked = windowed;
  chunked.window = 0;
  chunked.chunk = 4;
  expect_gradients(chunked, attention_problem(chunked, {10}, rng));
}

TEST(Gradients, OfAttentionOverSeveralTilesOfQueries) {
  Rng rng(10);
  const AttentionOp op{
      .heads = 1, .kv_heads = 1, .head_dim = 2, .value_dim = 2, .scale = 0.7f};
  expect_gradients(op, attention_problem(op, {70}, rng), 2e-3);
}

TEST(Gradients, OfSoftCapsSinksAndSlopes) {
  Rng rng(11);
  AttentionOp op{.heads = 2,
                 .kv_heads = 2,
                 .head_dim = 4,
                 .value_dim = 4,
                 .scale = 0.7f,
                 .softcap = 2.0f};
  expect_gradients(op, attention_problem(op, {6, 3}, rng));
  op.slopes = 0;
  GradientProblem sloped = attention_problem(op, {6, 3}, rng);
  sloped.parameters = {{0.5f, 0.125f}};
  sloped.constant_parameters = {0};  // ALiBi's slopes are not learned
  expect_gradients(op, sloped);
  op = {.heads = 2,
        .kv_heads = 1,
        .head_dim = 4,
        .value_dim = 4,
        .scale = 0.7f,
        .sinks = 0};
  GradientProblem sunk = attention_problem(op, {6, 3}, rng);
  sunk.parameters = {{0.5f, -0.25f}};
  expect_gradients(op, sunk);
}

}  // namespace
}  // namespace llmpress

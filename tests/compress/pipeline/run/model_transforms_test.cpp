#include "compress/pipeline/run/model_transforms.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/model/decoder.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

MatrixF logits_of(const Checkpoint& checkpoint, ThreadPool& pool) {
  const Decoder decoder(checkpoint);
  std::vector<TokenId> tokens;
  for (TokenId i = 0; i < 40; ++i) tokens.push_back(1 + i * 37 % 2000);
  const Segment segment{.rows = tokens.size()};
  const MatrixF hidden = decoder.forward(tokens, {&segment, 1}, pool);
  return decoder.ends().logits(hidden.view(), pool);
}

double relative_difference(const MatrixF& a, const MatrixF& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = a.data()[i] - b.data()[i];
    difference += d * d;
    norm += static_cast<double>(a.data()[i]) * a.data()[i];
  }
  return std::sqrt(difference / norm);
}

// float32 sums in another order: 1e-4 relative is what a rotation is allowed.
void expect_same_function(const std::string& stages) {
  ThreadPool pool(2);
  TemporaryDirectory directory;
  const Recipe recipe = small_recipe(stages, directory.path() / "o");
  const auto base = open_checkpoint(recipe.model);
  const StagePlan plan(recipe.stages, {});
  const TransformedModel model(*base, plan, pool);
  EXPECT_LT(relative_difference(logits_of(*base, pool),
                                logits_of(model.checkpoint(), pool)),
            1e-4)
      << stages;
}

TEST(ModelTransforms, InjectedOutliersKeepTheFunction) {
  expect_same_function("[{inject_outliers: {factor: 60, channels: 2}}]");
}

TEST(ModelTransforms, RotationsKeepTheFunction) {
  expect_same_function("[{rotate: {seed: 1}}]");
  expect_same_function("[{rotate: {seed: 2, online: true}}]");
}

TEST(ModelTransforms, StackUp) {
  expect_same_function("[{inject_outliers: {}}, {rotate: {online: true}}]");
}

TEST(ModelTransforms, InjectedOutliersAreThere) {
  ThreadPool pool(2);
  TemporaryDirectory directory;
  const Recipe recipe = small_recipe(
      "[{inject_outliers: {factor: 8, channels: 3}}]", directory.path() / "o");
  const auto base = open_checkpoint(recipe.model);
  const TransformedModel model(*base, StagePlan(recipe.stages, {}), pool);
  const std::string norm = "model.layers.0.input_layernorm.weight";
  const auto before = read_vector(base->tensors(), norm, 256);
  const auto after = read_vector(model.checkpoint().tensors(), norm, 256);
  int changed = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] == after[i]) continue;
    ++changed;
    EXPECT_EQ(after[i], before[i] * 8);
  }
  EXPECT_EQ(changed, 3);
}

// With outliers in the activations int8 per tensor is ruined, and a rotation
// spreads them out again.
TEST(ModelTransforms, RotationSavesActivationsWithOutliers) {
  ThreadPool pool(2);
  TemporaryDirectory directory;
  const std::string evaluate =
      "evaluate: {text: " + shipped("text/evaluation.txt").string() +
      ", context: 64, max_windows: 8}\n";
  const auto ratio = [&](const std::string& rotate) {
    const Recipe recipe =
        small_recipe("[{inject_outliers: {}}, " + rotate +
                         "{quantize: {method: rtn, scheme: W4A4}}]",
                     directory.path() / "o", evaluate);
    return run_recipe(recipe, {}, pool)
        .variants[0]
        .divergence->perplexity_ratio;
  };
  EXPECT_LT(5 * ratio("{rotate: {online: true}}, "), ratio(""));
}

}  // namespace
}  // namespace llmpress

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

std::string training(const std::string& body) {
  return "stages:\n  - distill: {text: t.txt, steps: 5" + body +
         "}\n  - quantize: {}\noutput: {path: o}\n";
}

TrainStage train_stage(const std::string& body) {
  const Recipe recipe = parse_recipe(training(body), "/some/r.yaml");
  return *training_of(recipe.stages.at(0));
}

TEST(TrainSection, NamesThePartsThatLearn) {
  EXPECT_TRUE(train_stage("").learn.empty());
  EXPECT_TRUE(train_stage(", learn: all").learn.empty());
  EXPECT_EQ(train_stage(", learn: scales").learn,
            std::vector{LearningPart::kScales});
  EXPECT_EQ(train_stage(", learn: [norms, zeros]").learn,
            (std::vector{LearningPart::kNorms, LearningPart::kZeros}));
}

TEST(TrainSection, IsAwareOfRoundingWhereAsked) {
  EXPECT_FALSE(train_stage("").aware.has_value());
  EXPECT_EQ(train_stage(", quantization_aware: {}").aware, QuantizationAware{});
  const auto aware =
      train_stage(
          ", quantization_aware: {learn_scales: false, activations: "
          "false, kv_cache: int8}")
          .aware;
  EXPECT_FALSE(aware->learn_scales);
  EXPECT_FALSE(aware->activations);
  EXPECT_EQ(aware->kv_cache, KvCacheType::kInt8);
}

TEST(TrainSection, ParsesBackFromItsResolvedForm) {
  for (const char* body :
       {", learn: [scales, zeros, biases]",
        ", quantization_aware: {learn_scales: false, kv_cache: fp8}"}) {
    const Recipe recipe = parse_recipe(training(body), "/some/r.yaml");
    EXPECT_EQ(parse_recipe(resolved_yaml(recipe), "/other/x.yaml"), recipe);
  }
}

TEST(TrainSection, RefusesWhatSaysNothing) {
  const auto expect = [](const std::string& body, const std::string& wanted) {
    const std::string found = refusal(training(body));
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  expect(", learn: gains", "has 'gains'; wants all, or some of scales");
  expect(", learn: [all, scales]", "has 'all'");
  expect(", learn: [scales, scales]", "twice");
  expect(", learn: []", "is empty");
  expect(", quantization_aware: {}, learn: scales", "everything learns");
  expect(", quantization_aware: {}, keep_zeros: true", "keep_zeros");
  expect(", quantization_aware: {kv_cache: int3}", "kv_cache");
  expect(", quantization_aware: {weights: {}}", "'weights' does not belong");
}

}  // namespace
}  // namespace llmpress

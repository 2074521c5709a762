#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/recipes/parse_failure.h"

namespace llmpress {
namespace {

std::string tuning(const std::string& body) {
  return "stages:\n  - tune: {text: t.txt" + body +
         "}\noutput: {path: o, format: peft}\n";
}

TuneStage tune_stage(const std::string& body) {
  return std::get<TuneStage>(
      parse_recipe(tuning(body), "/some/r.yaml").stages.at(0));
}

TEST(TuneSection, HasTheDefaultsOfPeftAndNoDecay) {
  const TuneStage stage = tune_stage(", steps: 5");
  EXPECT_EQ(stage.train.text, "/some/t.txt");
  EXPECT_EQ(stage.train.config.steps, 5u);
  EXPECT_EQ(stage.train.config.weight_decay, 0);
  EXPECT_EQ(stage.train.config.learning_rate, 2e-4);
  EXPECT_EQ(stage.adapter, TuneConfig{});
  EXPECT_EQ(stage.layers.targets, std::vector<std::string>{"Linear"});
  EXPECT_EQ(stage.adapter.scaling(), 2);
}

TEST(TuneSection, ScalesByTheMethod) {
  const std::string body = ", steps: 5, rank: 9, alpha: 18, method: ";
  EXPECT_DOUBLE_EQ(tune_stage(body + "lora").adapter.scaling(), 2);
  EXPECT_DOUBLE_EQ(tune_stage(body + "dora").adapter.scaling(), 2);
  EXPECT_DOUBLE_EQ(tune_stage(body + "rslora").adapter.scaling(), 6);
}

TEST(TuneSection, ParsesBackFromItsResolvedForm) {
  const Recipe recipe = parse_recipe(
      tuning(", held_out: h.txt, epochs: 2, rank: 3, alpha: 0.5, method: dora, "
             "init_seed: 9, learning_rate: 0.01, targets: [q_proj], ignore: "
             "['re:.*0.*'], optimizer: adamw_8bit, patience: 3"),
      "/some/r.yaml");
  EXPECT_EQ(parse_recipe(resolved_yaml(recipe), "/other/x.yaml"), recipe);
}

TEST(TuneSection, ReadsVirtualTokensWithoutTargets) {
  for (const std::string method : {"prefix", "prompt"}) {
    const Recipe recipe = parse_recipe(
        tuning(", steps: 5, num_virtual_tokens: 7, init: random, method: " +
               method),
        "/some/r.yaml");
    const auto& stage = std::get<TuneStage>(recipe.stages.at(0));
    EXPECT_TRUE(stage.adapter.is_virtual());
    EXPECT_EQ(stage.adapter.virtual_tokens, 7u);
    EXPECT_EQ(stage.adapter.start, VirtualStart::kRandom);
    EXPECT_EQ(parse_recipe(resolved_yaml(recipe), "/other/x.yaml"), recipe);
  }
}

TEST(TuneSection, ReadsBottlenecksAndDifferences) {
  for (const std::string body :
       {"bottleneck, bottleneck_size: 5, activation: gelu, placement: pfeiffer",
        "diff_pruning, keep: 0.25, penalty: 3, gate_rate: 7"}) {
    const Recipe recipe = parse_recipe(
        tuning(", steps: 5, targets: [down_proj], method: " + body),
        "/some/r.yaml");
    EXPECT_EQ(parse_recipe(resolved_yaml(recipe), "/other/x.yaml"), recipe);
  }
}

TEST(TuneSection, RefusesWhatSaysNothing) {
  const auto expect = [](const std::string& body, const std::string& wanted) {
    const std::string found = refusal(tuning(body));
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  expect(", steps: 5, rank: 0", "rank");
  expect(", steps: 5, alpha: 0", "alpha");
  expect(", steps: 5, method: ia3", "method");
  expect(", steps: 5, keep_zeros: true", "keep_zeros");
  expect(", steps: 5, student: {every: 2}", "'student'");
  expect(", steps: 5, targets: []", "select nothing");
  expect(", steps: 5, tokens: 5", "'steps', 'tokens' and 'epochs'");
  expect(", steps: 5, patience: 2", "needs 'held_out'");
  expect(", steps: 5, targets: ['re:(']", "re:(");
  expect(", steps: 5, keep: 0.5", "belongs to 'diff_pruning'");
  expect(", steps: 5, bottleneck_size: 5", "belongs to 'bottleneck'");
  expect(", steps: 5, method: diff_pruning, held_out: h.txt, patience: 2",
         "'diff_pruning'");
  expect(", steps: 5, num_virtual_tokens: 3", "belongs to 'prefix'");
  expect(", steps: 5, method: prefix, rank: 3", "belongs to 'lora'");
  expect(", steps: 5, method: prefix, targets: [q_proj]", "virtual tokens");
  expect(", steps: 5, method: prompt, ignore: [q_proj]", "virtual tokens");
  expect(", steps: 5, method: prefix, attention_dropout: 0.1",
         "virtual tokens");
}

TEST(TrainSection, ReadsSeveralTexts) {
  const std::string domains =
      "domains: [{text: a.txt, weight: 3, reference_loss: 2.5}, {text: b.txt}]";
  const auto stages = [](const std::string& body) {
    return "stages: [{train: {" + body + ", steps: 2}}]\n";
  };
  const Recipe recipe =
      parse_recipe(stages(domains + ", domain_rate: 0.5"), "/some/r.yaml");
  const TrainStage& stage = *training_of(recipe.stages.at(0));
  ASSERT_EQ(stage.domains.size(), 2u);
  EXPECT_EQ(stage.domains[0].text, "/some/a.txt");
  EXPECT_EQ(stage.domains[0].weight, 3);
  EXPECT_EQ(stage.domains[0].reference_loss, 2.5);
  EXPECT_EQ(stage.domains[1].weight, 1);
  EXPECT_EQ(stage.domain_rate, 0.5);
  EXPECT_EQ(parse_recipe(resolved_yaml(recipe), "/other/x.yaml"), recipe);
  const auto expect = [&](const std::string& body, const std::string& wanted) {
    const std::string found = refusal(stages(body));
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  expect(domains + ", text: c.txt", "is said by each of 'domains'");
  expect("domains: [{text: a.txt}]", "two texts or more");
  expect("domains: [{text: a.txt}, {weight: 2}]", "'text'");
  expect("domains: [{text: a.txt}, {text: b.txt, weight: 0}]", "weight");
  expect("domains: [{text: a.txt}, {text: b.txt, held_out: h.txt}]",
         "all or none");
  expect("text: a.txt, domain_rate: 2", "belongs to 'domains'");
  const std::string found = refusal(tuning(", steps: 5, domain_rate: 2"));
  EXPECT_NE(found.find("does not belong in 'tune'"), std::string::npos);
}

TEST(TrainSection, LearnsBiasesAloneWhereAsked) {
  const auto parse = [](const std::string& more) {
    return parse_recipe("stages: [{train: {text: t, steps: 2" + more + "}}]\n",
                        "/some/r.yaml");
  };
  const Recipe biases = parse(", learn: biases");
  EXPECT_EQ(training_of(biases.stages[0])->learn,
            std::vector{LearningPart::kBiases});
  EXPECT_EQ(parse_recipe(resolved_yaml(biases), "/other/x.yaml"), biases);
  EXPECT_TRUE(training_of(parse("").stages[0])->learn.empty());
  const std::string found = refusal(tuning(", steps: 5, learn: biases"));
  EXPECT_NE(found.find("'learn' does not belong in 'tune'"), std::string::npos)
      << found;
}

}  // namespace
}  // namespace llmpress

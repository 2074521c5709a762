#include "compress/pipeline/run/stage_check.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "compress/pipeline/run/run_jobs.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/compress/pipeline/shipped_model.h"

namespace llmpress {
namespace {

Recipe recipe_of(const std::string& stages) {
  return small_recipe("[" + stages + "]", "/nowhere/out");
}

std::string refusal(const std::string& stages) {
  const Architecture arch = parse_architecture(config_json({}), "tiny");
  try {
    const Recipe recipe = recipe_of(stages);
    check_selections(StagePlan(recipe.stages, {}), arch);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument) << e.what();
    return e.what();
  }
  return "";
}

std::vector<std::string> notes(const std::string& stages) {
  const Architecture arch = parse_architecture(config_json({}), "tiny");
  const Recipe recipe = recipe_of(stages);
  return selection_notes(StagePlan(recipe.stages, {}), arch);
}

void expect_in(const std::string& text, const std::string& wanted) {
  EXPECT_NE(text.find(wanted), std::string::npos) << text;
}

const std::string kMerge = "{merge_lora: {adapter: a}}";
const std::string kQuantize = "{quantize: {method: rtn}}";
const std::string kPrune = "{prune: {method: magnitude, sparsity: 0.5}}";
const std::string kSmooth = "{smooth: {method: awq}}";

// Every pair of stages whose order would not be kept, or of which one would be
// passed over.
TEST(StageCheck, RefusesOrdersThatWouldNotBeKept) {
  const std::string rotate = "{rotate: {}}", outliers = "{inject_outliers: {}}";
  const std::string cut =
      "{prune: {method: ffn, sparsity: 0.25, heal: false, "
      "importance: weights}}";
  const std::vector<std::pair<std::string, std::string>> wrong{
      {rotate, kMerge},
      {outliers, kMerge},
      {cut, kMerge},
      {kPrune, kMerge},
      {kQuantize, kMerge},
      {kSmooth, kMerge},
      {kQuantize, rotate},
      {kPrune, rotate},
      {kQuantize, cut},
      {kQuantize, outliers},
      {kQuantize, kPrune},
      {kQuantize, kSmooth},
      {kPrune, kSmooth},
      {rotate, rotate},
      {kSmooth, kSmooth},
      {"{rotate: {online: true}}", cut},
      {kSmooth, "{quantize: {method: awq}}"},
      {kSmooth, "{quantize: {method: smoothquant}}"}};
  for (const auto& [first, second] : wrong) {
    expect_in(refusal(first + ", " + second), "' after '");
  }
  const std::vector<std::string> right{
      kMerge + ", " + rotate + ", " + kQuantize,
      kMerge + ", " + kMerge + ", " + outliers + ", " + rotate,
      cut + ", " + rotate + ", " + kSmooth + ", " + kPrune + ", " + kQuantize};
  for (const std::string& stages : right) EXPECT_EQ(refusal(stages), "");
}

TEST(StageCheck, RefusesASecondStageOfAKindOnOneLinear) {
  expect_in(refusal(kQuantize + ", " + kQuantize),
            "quantize selects 'model.layers.0.self_attn.q_proj', which the "
            "stage at test.yaml:");
  expect_in(refusal(kPrune + ", " + kPrune), "prune selects");
  EXPECT_EQ(refusal("{quantize: {method: rtn, targets: [q_proj]}}, {quantize: "
                    "{method: nf4, ignore: [q_proj]}}"),
            "");
  expect_in(refusal("{quantize: {method: rtn, targets: [lm_head]}}, {quantize: "
                    "{method: rtn, targets: [Linear, lm_head]}}"),
            "selects 'lm_head'");
}

TEST(StageCheck, RefusesStagesThatSelectNothingAndGlobs) {
  const auto selecting = [](const std::string& layers) {
    return "{quantize: {method: rtn, " + layers + "}}";
  };
  expect_in(refusal(selecting("targets: [upproj]")),
            "quantize selects nothing: 'upproj' of 'targets' matches no "
            "module; did you mean 'up_proj'?");
  expect_in(refusal(selecting("targets: ['re:.*expert.*']")),
            "'re:.*expert.*' of 'targets'");
  expect_in(refusal(selecting("targets: ['model.layers.*.mlp.*']")),
            "globs are not known here");
  expect_in(refusal(selecting("ignore: ['*.up_proj']")), "globs");
  expect_in(refusal(selecting("ignore: [Linear]")), "'ignore' takes out all");
  expect_in(refusal("{prune: {method: magnitude, sparsity: 0.5, targets: "
                    "[model.layers.7.mlp.up_proj]}}"),
            "prune selects nothing");
}

TEST(StageCheck, NamesEachEntryThatMatchesNothing) {
  EXPECT_TRUE(notes("{quantize: {method: rtn, ignore: [lm_head, "
                    "embed_tokens, 're:.*mlp.*']}}")
                  .empty());
  const auto found = notes(
      "{quantize: {method: rtn, targets: [q_proj, wo], ignore: [up_porj, "
      "'re:.*vision.*', down_proj]}}");
  ASSERT_EQ(found.size(), 3u);
  expect_in(found[0], "'wo' of 'targets' matches no module");
  expect_in(found[1], "did you mean 'up_proj'?");
  expect_in(found[2], "'re:.*vision.*' of 'ignore'");
}

TEST(StageCheck, SaysWhereScalesAreNotMoved) {
  expect_in(refusal(kSmooth), "'smooth' changes nothing");
  expect_in(refusal(kSmooth + ", {quantize: {method: rtn, targets: [q_proj]}}"),
            "'smooth' changes nothing");
  const auto found =
      notes("{quantize: {method: smoothquant, ignore: [q_proj]}}");
  ASSERT_EQ(found.size(), 1u);
  expect_in(found[0],
            "no scales are moved into self_attn.q_proj, "
            "self_attn.k_proj, self_attn.v_proj in 2 blocks");
}

}  // namespace
}  // namespace llmpress

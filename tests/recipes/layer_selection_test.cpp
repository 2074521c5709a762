#include "recipes/layer_selection.h"

#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"

namespace llmpress {
namespace {

constexpr std::string_view kUp = "model.layers.3.mlp.up_proj";
constexpr std::string_view kQuery = "model.layers.3.self_attn.q_proj";

bool selects(const LayerSelection& selection, std::string_view name,
             ModuleRole role = ModuleRole::kBlockLinear) {
  return LayerSelector(selection, "r.yaml:3:5").selects(name, role);
}

std::string refusal(const std::string& target, std::string_view name = kUp) {
  try {
    selects({.targets = {target}}, name);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(LayerSelection, EveryLinearOfTheBlocksIsSelectedByDefault) {
  EXPECT_TRUE(selects({}, kUp));
  EXPECT_FALSE(selects({}, "lm_head", ModuleRole::kHead));
  EXPECT_FALSE(selects({}, "model.embed_tokens", ModuleRole::kEmbedding));
}

TEST(LayerSelection, AnEntryIsAClassAFullNameOrALastName) {
  EXPECT_TRUE(selects({.targets = {"Linear"}}, kUp));
  EXPECT_TRUE(selects({.targets = {std::string(kUp)}}, kUp));
  EXPECT_FALSE(selects({.targets = {std::string(kUp)}}, kQuery));
  EXPECT_TRUE(selects({.targets = {"up_proj"}}, kUp));
  EXPECT_TRUE(selects({.targets = {"mlp.up_proj"}}, kUp));
  EXPECT_FALSE(selects({.targets = {"p_proj"}}, kUp)) << "part of a name";
  EXPECT_FALSE(selects({.targets = {"up_proj"}}, kQuery));
}

TEST(LayerSelection, APatternMatchesFromTheStartAndMayEndAnywhere) {
  EXPECT_TRUE(selects({.targets = {"re:.*proj"}}, kUp));
  EXPECT_TRUE(selects({.targets = {"re:model\\.layers\\.3\\."}}, kUp));
  EXPECT_FALSE(selects({.targets = {"re:mlp"}}, kUp)) << "not at the start";
  EXPECT_FALSE(selects({.targets = {"re:.*(q|k|v)_proj$"}}, kUp));
  EXPECT_TRUE(selects({.targets = {"re:.*(q|k|v)_proj$"}}, kQuery));
  EXPECT_FALSE(selects({.targets = {"re:.*layers\\.(?!3\\.)"}}, kUp));
}

TEST(LayerSelection, IgnoreWinsOverTargets) {
  EXPECT_FALSE(selects({.targets = {"Linear"}, .ignore = {"up_proj"}}, kUp));
  EXPECT_FALSE(selects({.ignore = {"re:.*mlp"}}, kUp));
  EXPECT_TRUE(selects({.ignore = {"re:.*mlp"}}, kQuery));
}

TEST(LayerSelection, TheHeadIsSelectedByNameOnly) {
  const auto head = [](const LayerSelection& selection) {
    return selects(selection, "lm_head", ModuleRole::kHead);
  };
  EXPECT_TRUE(head({.targets = {"Linear", "lm_head"}}));
  EXPECT_FALSE(head({.targets = {"Linear"}}));
  EXPECT_FALSE(head({.targets = {"re:.*"}}));
  EXPECT_FALSE(head({.targets = {"lm_head"}, .ignore = {"re:lm_"}}));
  EXPECT_TRUE(selects({.targets = {"embed_tokens"}}, "model.embed_tokens",
                      ModuleRole::kEmbedding));
}

TEST(LayerSelection, APatternThatIsNoExpressionIsRefused) {
  EXPECT_EQ(refusal("re:(a"),
            "r.yaml:3:5: regular expression 're:(a' is malformed at offset 2: "
            "missing closing parenthesis");
  EXPECT_NE(refusal("re:" + std::string(4097, '(')), "");
  EXPECT_EQ(refusal("re:.*proj"), "");
}

TEST(LayerSelection, APatternThatBacktracksWithoutEndIsRefusedByName) {
  for (const std::string pattern :
       {"re:(.*)+[XY]$", "re:(.+)+(.+)+(.+)+(.+)+[QZ]", "re:((\\w+\\.?)+)+[ !]",
        "re:(a|b|.|.*)+[#!]"}) {
    const std::string message = refusal(pattern);
    EXPECT_NE(
        message.find("r.yaml:3:5: regular expression '" + pattern +
                     "' takes more than 100000 steps on '" + std::string(kUp)),
        std::string::npos)
        << pattern << ": " << message;
  }
}

TEST(LayerSelection, EachPatternOfManyMayTakeFewerSteps) {
  LayerSelection many;
  for (int i = 0; i < 5000; ++i) {
    many.targets.push_back("re:(x|" + std::to_string(i) + "y)+z");
  }
  const LayerSelector selector(many, "r.yaml:3:5");
  EXPECT_FALSE(selector.selects(kUp));
  many.targets.push_back("re:.*.*.*.*[XY]");
  EXPECT_THROW((void)LayerSelector(many, "").selects(kUp), Error);
  EXPECT_FALSE(selects({.targets = {"re:.*.*.*.*[XY]"}}, kUp));
}

}  // namespace
}  // namespace llmpress

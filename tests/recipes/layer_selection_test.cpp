#include "recipes/layer_selection.h"

#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"

namespace llmpress {
namespace {

constexpr std::string_view kUp = "model.layers.3.mlp.up_proj";
constexpr std::string_view kQuery = "model.layers.3.self_attn.q_proj";

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
  EXPECT_THROW(check_pattern("(a"), Error);
  EXPECT_THROW(check_pattern(std::string(100'000, '(')), Error);
  EXPECT_NO_THROW(check_pattern(".*proj"));
}

}  // namespace
}  // namespace llmpress

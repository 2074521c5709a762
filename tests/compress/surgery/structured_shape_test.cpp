#include "compress/surgery/structured_shape.h"

#include <gtest/gtest.h>

#include <vector>

#include "compress/core/error.h"
#include "tests/compress/model/tiny_model.h"

namespace llmpress {
namespace {

Architecture arch_of(const TinyShape& shape) {
  return parse_architecture(config_json(shape), "tiny");
}

Architecture after(const TinyShape& shape, const PruneConfig& config,
                   const std::vector<std::size_t>& layers = {}) {
  return parse_architecture(
      pruned_config(config_json(shape), arch_of(shape), config, layers),
      "reduced");
}

TEST(StructuredShape, RoundsWhatStaysUpToTheMultiple) {
  const Architecture arch = arch_of({.ffn = 40});
  const auto kept = [&](double sparsity, std::size_t multiple_of) {
    return unit_count(arch, {.method = PruneMethod::kFfn,
                             .sparsity = sparsity,
                             .multiple_of = multiple_of})
        .kept;
  };
  EXPECT_EQ(kept(0.5, 1), 20u);
  EXPECT_EQ(kept(0.5, 16), 32u);
  EXPECT_EQ(kept(0.9, 16), 16u);
  EXPECT_EQ(kept(0.1, 64), 40u);
}

// Without the key the head size would follow from the sizes that changed.
TEST(StructuredShape, WritesTheHeadSizeOut) {
  TinyShape shape{.hidden = 24, .heads = 4, .kv_heads = 2, .head_dim = 6};
  std::string config = config_json(shape);
  const std::string key = R"(, "head_dim": 6)";
  config.erase(config.find(key), key.size());
  const Architecture arch = parse_architecture(config, "tiny");
  ASSERT_EQ(arch.head_dim, 6u);
  for (const PruneMethod method : {PruneMethod::kHeads, PruneMethod::kHidden}) {
    const Architecture reduced = parse_architecture(
        pruned_config(config, arch, {.method = method}), "reduced");
    EXPECT_EQ(reduced.head_dim, 6u);
  }
}

TEST(StructuredShape, KeepsTheKindsOfTheLayersThatStay) {
  TinyShape shape{.model_type = "qwen2", .layers = 4};
  shape.more_json =
      R"(, "use_sliding_window": true, "sliding_window": 4, "layer_types": [)"
      R"("sliding_attention", "full_attention", "sliding_attention", )"
      R"("full_attention"])";
  const Architecture reduced =
      after(shape, {.method = PruneMethod::kDepth}, {1, 2});
  EXPECT_EQ(reduced.layers, 2u);
  EXPECT_EQ(windows_of(reduced), (std::vector<std::size_t>{0, 4}));
}

TEST(StructuredShape, SaysWhereARecipeAsksForTheImpossible) {
  PruneStage stage{.config = {.method = PruneMethod::kKvHeads, .kv_heads = 3},
                   .position = {.file = "r.yaml", .line = 7, .column = 3}};
  try {
    check_structured(arch_of({.kv_heads = 4}), stage);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find("r.yaml:7:3: "), 0u) << e.what();
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
  }
}

TEST(StructuredShape, PlansStagesOneAfterAnother) {
  const std::vector<Stage> stages{
      PruneStage{.config = {.method = PruneMethod::kFfn}},
      PruneStage{.config = {.method = PruneMethod::kFfn}},
      PruneStage{.config = {.method = PruneMethod::kHeads}}};
  const Architecture arch = planned_architecture(
      StagePlan(stages, {}), config_json({.ffn = 40}), "tiny");
  EXPECT_EQ(arch.ffn, 10u);
  EXPECT_EQ(arch.heads, 2u);
  EXPECT_EQ(arch.kv_heads, 1u);
}

}  // namespace
}  // namespace llmpress

#include "compress/surgery/kept_layers.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/artifact_writer.h"
#include "pruning/unit_selection.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;
using Layers = std::vector<std::size_t>;

std::string golden(const std::string& name) {
  return read_file(fs::path(source_dir()) / "tests/compress/model/goldens" /
                   name / "config.json");
}

// config.json of `config` with the layers `kept`; checked.
json after(const std::string& config, const Layers& kept) {
  const Architecture before = parse_architecture(config, "before");
  return json::parse(pruned_config(
      config, before, {.method = PruneMethod::kDepth, .sparsity = 0.5}, kept));
}

std::string refusal(const std::string& config, const Layers& kept) {
  try {
    (void)after(config, kept);
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    return e.what();
  }
}

std::string with(const std::string& config, const json& more) {
  json changed = json::parse(config);
  changed.update(more);
  return changed.dump();
}

TEST(KeptLayers, KeepTheirLettersAndEntries) {
  const std::string nemotron =
      with(golden("nemotron_h"), {{"layer_types", nullptr},
                                  {"layers_block_type", nullptr},
                                  {"num_hidden_layers", 5},
                                  {"hybrid_override_pattern", "M-*-M"}});
  const json left = after(nemotron, {0, 2, 3});
  EXPECT_EQ(left["hybrid_override_pattern"], "M*-");
  EXPECT_EQ(left["num_hidden_layers"], 3);
  const std::string smollm =
      with(golden("smollm3"), {{"layer_types", nullptr},
                               {"num_hidden_layers", 4},
                               {"no_rope_layers", {1, 0, 1, 0}}});
  EXPECT_EQ(after(smollm, {1, 2})["no_rope_layers"], json::array({0, 1}));
}

TEST(KeptLayers, AreNumberedAnew) {
  const std::string qwen =
      with(golden("qwen2_moe"), {{"num_hidden_layers", 6},
                                 {"layer_types", nullptr},
                                 {"use_sliding_window", false},
                                 {"decoder_sparse_step", 2},
                                 {"mlp_only_layers", {3}}});
  // Experts in 1 and 5.
  const json left = after(qwen, {1, 2, 3, 5});
  EXPECT_EQ(left["decoder_sparse_step"], 1);
  EXPECT_EQ(left["mlp_only_layers"], json::array({1, 2}));
  const std::string deepseek =
      with(golden("deepseek_v3"),
           {{"num_hidden_layers", 4}, {"first_k_dense_replace", 2}});
  EXPECT_EQ(after(deepseek, {1, 2, 3})["first_k_dense_replace"], 1);
}

TEST(KeptLayers, OfACycleAreWrittenOut) {
  const std::string griffin =
      with(golden("recurrent_gemma"),
           {{"num_hidden_layers", 6},
            {"block_types", {"recurrent", "recurrent", "attention"}}});
  EXPECT_EQ(after(griffin, {0, 2, 5})["block_types"],
            json::array({"recurrent", "attention", "attention"}));
}

TEST(KeptLayers, AreRefusedWhereAPlaceSaysWhatALayerIs) {
  const std::string jamba = with(golden("jamba"), {{"num_hidden_layers", 4},
                                                   {"attn_layer_period", 2},
                                                   {"attn_layer_offset", 1},
                                                   {"expert_layer_period", 2},
                                                   {"expert_layer_offset", 1}});
  EXPECT_EQ(refusal(jamba, {0, 1}), "");
  EXPECT_NE(refusal(jamba, {0, 2}).find("the block's place"),
            std::string::npos);
  const std::string scaled =
      with(golden("gpt2"), {{"n_layer", 3},
                            {"num_hidden_layers", nullptr},
                            {"scale_attn_by_inverse_layer_idx", true}});
  EXPECT_NE(refusal(scaled, {1, 2}), "");
  EXPECT_EQ(refusal(scaled, {0, 1}), "");
  EXPECT_NE(refusal(golden("gemma4_text"), {0, 1}).find("a table"),
            std::string::npos);
}

// A window that follows from the layer's number would go to another layer: the
// kinds are as many, and in the same order.
TEST(KeptLayers, AreComparedByWhatTheyCompute) {
  const std::string gemma = with(
      golden("gemma2"), {{"num_hidden_layers", 4}, {"layer_types", nullptr}});
  EXPECT_NE(refusal(gemma, {1, 2}), "");
  EXPECT_EQ(refusal(gemma, {0, 1}), "");
  const std::string listed =
      with(gemma, {{"layer_types",
                    {"sliding_attention", "full_attention", "sliding_attention",
                     "full_attention"}}});
  EXPECT_EQ(refusal(listed, {1, 2}), "");
}

// What a plan asks: any block may go.
TEST(KeptLayers, AreRefusedBeforeItIsKnownWhichBlocksGo) {
  const auto planned = [](const std::string& config) {
    const std::vector<Stage> stages{
        PruneStage{.config = {.method = PruneMethod::kDepth, .sparsity = 0.34},
                   .position = {.file = "r.yaml", .line = 7, .column = 3}}};
    try {
      return std::to_string(
          planned_architecture(StagePlan(stages, {}), config, "g").layers);
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  const std::string jamba = golden("jamba");
  EXPECT_TRUE(planned(jamba).starts_with("r.yaml:7:3: jamba: "))
      << planned(jamba);
  EXPECT_EQ(planned(golden("llama")).find("r.yaml"), std::string::npos);
  EXPECT_EQ(planned(golden("nemotron_h")).find("r.yaml"), std::string::npos)
      << planned(golden("nemotron_h"));
}

}  // namespace
}  // namespace llmpress

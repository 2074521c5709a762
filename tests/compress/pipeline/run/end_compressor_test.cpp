#include "compress/pipeline/run/end_compressor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

const std::string kEvaluate =
    "evaluate: {text: " + shipped("text/evaluation.txt").string() +
    ", context: 64, max_windows: 8}\n";

// The shipped model, whose head is tied to its embedding, through `stages`.
class EndCompressor : public testing::Test {
 protected:
  RunReport run(const std::string& stages, std::size_t samples = 4) {
    Recipe recipe = small_recipe(stages, directory_.path() / "out", kEvaluate);
    recipe.calibration->samples = samples;
    return run_recipe(recipe, {}, pool_);
  }
  std::unique_ptr<Checkpoint> artifact() {
    return open_checkpoint(directory_.path() / "out");
  }
  Architecture architecture() {
    return parse_architecture(artifact()->config_json(), "out");
  }
  static const LayerReport& layer(const RunReport& report,
                                  const std::string& name) {
    const auto& layers = report.variants[0].layers;
    return *std::ranges::find(layers, name, &LayerReport::name);
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(EndCompressor, GivesATiedHeadAWeightOfItsOwnChosenFromItsInputs) {
  const RunReport report =
      run("[{quantize: {method: gptq, targets: [lm_head], weights: {bits: 4, "
          "group_size: 32}}}]",
          64);
  EXPECT_FALSE(architecture().tied_head);
  const LinearWeights head = artifact()->read_linear("lm_head");
  EXPECT_TRUE(std::holds_alternative<GroupedIntWeight>(head.weight));
  const LinearWeights embedding = artifact()->read_linear("model.embed_tokens");
  EXPECT_TRUE(std::holds_alternative<DenseWeight>(embedding.weight));
  EXPECT_TRUE(layer(report, "lm_head").calibrated);

  const RunReport rounded =
      run("[{quantize: {method: rtn, targets: [lm_head], weights: {bits: 4, "
          "group_size: 32}}}]");
  EXPECT_LT(report.variants[0].divergence->kl_mean,
            rounded.variants[0].divergence->kl_mean);
}

TEST_F(EndCompressor, RoundsAnEmbeddingToNearestAndSaysSo) {
  const RunReport report = run(
      "[{quantize: {method: gptq, targets: [embed_tokens], weights: {bits: 8, "
      "group_size: -1}}}]");
  EXPECT_TRUE(architecture().tied_head);
  const LayerReport& embedding = layer(report, "model.embed_tokens");
  EXPECT_EQ(embedding.method, "rtn");
  EXPECT_NE(std::ranges::find(embedding.notes,
                              "rounded to nearest: an embedding has no inputs "
                              "to calibrate on"),
            embedding.notes.end());
  EXPECT_NEAR(report.variants[0].divergence->perplexity_ratio, 1, 2e-3);
}

TEST_F(EndCompressor, KeepsTheHeadTiedWhenOneStageSelectsBoth) {
  run("[{quantize: {method: rtn, targets: [Linear, embed_tokens, lm_head], "
      "weights: {bits: 8, group_size: -1}}}]");
  EXPECT_TRUE(architecture().tied_head);
  EXPECT_FALSE(artifact()->has_linear("lm_head"));
  const LinearWeights embedding = artifact()->read_linear("model.embed_tokens");
  EXPECT_FALSE(std::holds_alternative<DenseWeight>(embedding.weight));
}

TEST_F(EndCompressor, RoundsNoActivationsOfAHeadTiedToADenseEmbedding) {
  run("[{quantize: {method: rtn, scheme: W8A8, input: {range: static}}}]");
  const auto model = artifact();
  EXPECT_EQ(model->read_linear("model.embed_tokens").input.kind,
            ActivationQuant::Kind::kNone);
  const auto linear = model->read_linear("model.layers.0.mlp.up_proj");
  EXPECT_EQ(linear.input.kind, ActivationQuant::Kind::kInt);
  EXPECT_EQ(linear.input.range, ActivationQuant::Range::kStatic);
  EXPECT_GT(linear.input.static_scale, 0);
}

TEST_F(EndCompressor, RefusesWhatCannotBeDoneToAnEnd) {
  const auto message = [&](const std::string& stages) -> std::string {
    try {
      run(stages);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message("[{quantize: {method: auto, target_bits: 4.5, targets: "
                    "[Linear, lm_head]}}]")
                .find("give 'lm_head' a stage of its own"),
            std::string::npos);
  EXPECT_NE(message("[{prune: {method: wanda, sparsity: 0.5, targets: "
                    "[embed_tokens]}}]")
                .find("has no inputs to calibrate on"),
            std::string::npos);
}

}  // namespace
}  // namespace llmpress

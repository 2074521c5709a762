#include "compress/pipeline/run/block_compressor.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

const std::string kEvaluate =
    "evaluate: {text: " + shipped("text/evaluation.txt").string() +
    ", context: 64, max_windows: 24}\n";

class BlockCompressor : public testing::Test {
 protected:
  RunReport run(const Recipe& recipe, const RunOptions& options = {}) {
    return run_recipe(recipe, options, pool_);
  }
  double divergence(const std::string& stages) {
    Recipe recipe = small_recipe(stages, path("measured"), kEvaluate);
    recipe.calibration->samples = 48;  // fewer tokens give noise
    const RunReport report = run(recipe);
    return report.variants[0].divergence->kl_mean;
  }
  std::filesystem::path path(const std::string& name) {
    return directory_.path() / name;
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(BlockCompressor, PullsTowardsTheUncompressedModelWithGptaq) {
  const std::string weights = "weights: {bits: 2, group_size: 32}";
  const double gptq =
      divergence("[{quantize: {method: gptq, " + weights + "}}]");
  const double gptaq =
      divergence("[{quantize: {method: gptq, asymmetric_calibration: true, " +
                 weights + "}}]");
  EXPECT_LT(gptaq, gptq);
}

// The reference stream must come back to the same state whether a block was
// compressed or taken from an interrupted run, also where scales moved.
TEST_F(BlockCompressor, ResumesTheUncompressedModelBesideTheCompressed) {
  const Recipe recipe = small_recipe(
      "[{smooth: {method: smoothquant}}, {quantize: {method: gptq, "
      "asymmetric_calibration: true, weights: {bits: 4, group_size: 64}}}]",
      path("out"));
  run(recipe);
  const auto whole = files_of(path("out"));
  std::filesystem::remove_all(path("out"));
  RunOptions interrupted{.progress = [](const ProgressEvent& event) {
    if (event.detail == "model.layers.2") {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run(recipe, interrupted), Error);
  run(recipe);
  EXPECT_EQ(files_of(path("out")), whole);
}

TEST_F(BlockCompressor, CountsTheInputsThatReachTheThreshold) {
  const RunReport plain = run(small_recipe(
      "[{quantize: {method: llm_int8, llm_int8: {outliers: batch}}}]",
      path("plain")));
  const RunReport injected = run(small_recipe(
      "[{inject_outliers: {factor: 60, channels: 2}}, {quantize: {method: "
      "llm_int8, llm_int8: {outliers: batch}}}]",
      path("injected")));
  std::size_t before = 0, after = 0;
  for (const LayerReport& layer : plain.variants[0].layers) {
    before += layer.outlier_columns;
  }
  for (const LayerReport& layer : injected.variants[0].layers) {
    after += layer.outlier_columns;
    if (layer.name.ends_with("q_proj")) {
      EXPECT_GE(layer.outlier_columns, 1u) << layer.name;
    }
  }
  // At least one channel of two norms of four blocks, read by 3 and 2 Linears.
  EXPECT_GE(after, before + 20);
}

}  // namespace
}  // namespace llmpress

// Structured pruning, and sparsities by outliers, as stages of a run.
#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kEvaluate =
    "evaluate: {text: " + shipped("text/evaluation.txt").string() +
    ", context: 64, max_windows: 8}\n";
const std::string kPruneAndRound =
    "[{prune: {method: ffn, sparsity: 0.5}}, {prune: {method: depth, "
    "sparsity: 0.25}}, {prune: {method: wanda, allocation: owl}}, "
    "{quantize: {method: gptq, weights: {bits: 4, group_size: 32}}}]";

class StructuredRun : public testing::Test {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }
  RunReport run(const std::string& stages, const std::string& out,
                const RunOptions& options = {}, const std::string& more = "") {
    return run_recipe(small_recipe(stages, path(out), more), options, pool_);
  }
  void interrupt(const std::string& stages, const std::string& phase,
                 std::size_t done) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase.starts_with(phase) && event.done == done) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(stages, "out", options), Error);
    EXPECT_FALSE(fs::exists(path("out")));
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(StructuredRun, StandsBeforeOtherStagesAndEvaluatesLikeAnyModel) {
  const RunReport report = run(kPruneAndRound, "out", {}, kEvaluate);
  const VariantReport& variant = report.variants[0];
  EXPECT_EQ(variant.layers.size(), 3u * 7u);  // a block of four went
  EXPECT_EQ(variant.pruning, "ffn + depth + wanda owl + gptq");
  // 4 and 3 blocks with two healed Linears each, and the block that went.
  EXPECT_EQ(variant.structured.size(), 2u * 4u + 2u * 3u + 1u);
  ASSERT_TRUE(variant.evaluation);
  EXPECT_LT(variant.evaluation->perplexity, 10 * report.base->perplexity);
  const auto artifact = open_checkpoint(path("out"));
  const Architecture arch = parse_architecture(artifact->config_json(), "out");
  EXPECT_EQ(arch.ffn, 384u);
  EXPECT_EQ(arch.layers, 3u);
  EXPECT_FALSE(fs::exists(path("out.resume")));
  EXPECT_TRUE(fs::exists(path("out") / "tokenizer.json"));
}

TEST_F(StructuredRun, EndsInTheSameBytesAfterInterruptions) {
  run(kPruneAndRound, "out");
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  interrupt(kPruneAndRound, "prune FFN", 2);
  EXPECT_FALSE(fs::exists(path("out.resume") / "reduced-0"));
  interrupt(kPruneAndRound, "prune blocks", 1);
  EXPECT_TRUE(fs::exists(path("out.resume") / "reduced-0"));
  interrupt(kPruneAndRound, "compress", 1);
  bool pruned_again = false;
  const RunOptions last{.progress = [&](const ProgressEvent& event) {
    pruned_again = pruned_again || event.phase.starts_with("prune");
  }};
  const RunReport report = run(kPruneAndRound, "out", last);
  EXPECT_FALSE(pruned_again);
  EXPECT_EQ(report.variants[0].structured.size(), 2u * 4u + 2u * 3u + 1u);
  EXPECT_EQ(files_of(path("out")), whole);
}

TEST_F(StructuredRun, LearnsMasksWithTheirWeightsAnewAfterAnInterruption) {
  const std::string stages =
      "[{prune: {method: ffn, sparsity: 0.5, importance: learned, mask_steps: "
      "4, mask_batch: 2, mask_weight_rate: 1e-3, heal: false}}, {prune: "
      "{method: depth, sparsity: 0.25}}]";
  run(stages, "out");
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  interrupt(stages, "train", 3);
  interrupt(stages, "prune FFN", 2);
  interrupt(stages, "prune blocks", 1);
  bool learned_again = false;
  const RunOptions last{.progress = [&](const ProgressEvent& event) {
    learned_again = learned_again || event.phase == "train";
  }};
  run(stages, "out", last);
  EXPECT_FALSE(learned_again);
  EXPECT_EQ(files_of(path("out")), whole);
}

TEST_F(StructuredRun, SpreadsSparsityByOutliersInTheReport) {
  const RunReport report =
      run("[{prune: {method: wanda, sparsity: 0.6, allocation: owl}}]", "out");
  const auto& layers = report.variants[0].layers;
  double mean = 0, low = 1, high = 0;
  for (const LayerReport& l : layers) {
    mean += l.sparsity / static_cast<double>(layers.size());
    low = std::min(low, l.sparsity);
    high = std::max(high, l.sparsity);
  }
  // A row of 256 inputs loses whole weights.
  EXPECT_NEAR(mean, 0.6, 1.0 / 256);
  EXPECT_NEAR(high - low, 0.16, 2.0 / 256);
  EXPECT_EQ(report.variants[0].notes.size(), 4u);
}

TEST_F(StructuredRun, RefusesBeforeAnyWork) {
  for (const char* stages : {"[{prune: {method: kv_heads, kv_heads: 5}}]",
                             "[{prune: {method: kv_heads, kv_heads: 3}}]"}) {
    int events = 0;
    const RunOptions options{
        .progress = [&](const ProgressEvent&) { ++events; }};
    EXPECT_THROW(run(stages, "out", options), Error);
    EXPECT_EQ(events, 0);
    EXPECT_FALSE(fs::exists(path("out.resume")));
  }
}

TEST_F(StructuredRun, IsPlannedInItsNewShape) {
  const Recipe recipe = small_recipe(
      "[{prune: {method: ffn, sparsity: 0.5}}, {prune: {method: depth}}, "
      "{quantize: {method: rtn, weights: {bits: 4, group_size: 32}}}]",
      path("out"));
  const RunPlan plan = plan_recipe(recipe, {}, pool_);
  const RunReport report = run_recipe(recipe, {}, pool_);
  ASSERT_EQ(plan.variants[0].layers.size(), report.variants[0].layers.size());
  for (std::size_t l = 0; l < report.variants[0].layers.size(); ++l) {
    const LayerReport& layer = report.variants[0].layers[l];
    const PlannedLayer& planned = plan.variants[0].layers[l];
    EXPECT_EQ(planned.name, layer.name);
    EXPECT_EQ(planned.out, layer.out);
    EXPECT_EQ(planned.in, layer.in);
    EXPECT_EQ(planned.bytes_after, layer.bytes);
  }
}

}  // namespace
}  // namespace llmpress

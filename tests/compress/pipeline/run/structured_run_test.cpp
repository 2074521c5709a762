// Structured pruning, and sparsities by outliers, as stages of a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "compress/core/error.h"
#include "compress/pipeline/evaluation/model_copy.h"
#include "compress/pipeline/run/run.h"
#include "compress/surgery/structured_shape.h"
#include "formats/checkpoints/artifact_writer.h"
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
    Recipe recipe = small_recipe(stages, path(out), more);
    if (!model_.empty()) recipe.model = model_;
    return run_recipe(recipe, options, pool_);
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
  fs::path model_{};  // empty: the shipped one
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
  EXPECT_TRUE(fs::exists(path("out.resume") / "reduced-0.steps/block-00001"));
  interrupt(kPruneAndRound, "prune blocks", 1);
  EXPECT_TRUE(fs::exists(path("out.resume") / "reduced-0"));
  EXPECT_FALSE(fs::exists(path("out.resume") / "reduced-0.steps"));
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

// What decides over the whole model is not looked at again, and blocks are cut
// and healed once, whichever units go. In bf16, which the next block's calibration
// does not see.
TEST_F(StructuredRun, GoesOnBlockByBlockToTheSameBytes) {
  model_ = path("bf16");
  copy_model(*open_checkpoint(shipped("tinystories-3.7m")),
             {.output = model_, .dtype = DType::kBF16});
  struct Kind {
    std::string settings, phase, chooses;
  };
  const Kind kinds[] = {
      {"ffn, sparsity: 0.5", "prune FFN", ""},
      {"ffn, sparsity: 0.5, heal: false", "prune FFN", ""},
      {"ffn, sparsity: 0.5, importance: gradients", "prune FFN", "gradients"},
      {"heads, sparsity: 0.5, importance: gradients", "prune ", "gradients"},
      {"heads, sparsity: 0.5, importance: learned, mask_steps: 4, mask_batch: "
       "2",
       "prune ", "train"},
      {"kv_heads, kv_heads: 1", "prune ", ""},
      {"hidden, sparsity: 0.25, importance: gradients", "prune ", "gradients"},
      {"depth, sparsity: 0.25", "prune blocks", "measure"},
  };
  for (const Kind& kind : kinds) {
    const std::string stages = "[{prune: {method: " + kind.settings + "}}]";
    SCOPED_TRACE(kind.settings);
    std::set<std::string> phases;
    const RunOptions listening{.progress = [&](const ProgressEvent& event) {
      phases.insert(event.phase);
    }};
    const RunReport first = run(stages, "out", listening);
    const auto whole = files_of(path("out"));
    const auto all_phases = phases;
    fs::remove_all(path("out"));
    interrupt(stages, kind.phase, 1);
    interrupt(stages, kind.phase, 2);
    const fs::path steps = path("out.resume") / "reduced-0.steps";
    ASSERT_TRUE(fs::exists(steps / "block-00001"));
    phases.clear();
    const RunReport last = run(stages, "out", listening);
    const auto chose = [&](const std::set<std::string>& some) {
      return std::ranges::any_of(some, [&](const std::string& phase) {
        return phase.starts_with(kind.chooses);
      });
    };
    if (!kind.chooses.empty()) {
      EXPECT_TRUE(chose(all_phases));
      EXPECT_FALSE(chose(phases));
    }
    EXPECT_EQ(files_of(path("out")), whole);
    const auto& was = first.variants[0].structured;
    const auto& is = last.variants[0].structured;
    ASSERT_EQ(is.size(), was.size());
    for (std::size_t i = 0; i < is.size(); ++i) {
      EXPECT_EQ(is[i].name, was[i].name);
      EXPECT_EQ(is[i].output_error, was[i].output_error);
      EXPECT_EQ(is[i].notes, was[i].notes);
    }
    fs::remove_all(path("out"));
  }
}

TEST_F(StructuredRun, TakesFinishedBlocksFromWhereTheyAreUnlessDamaged) {
  const std::string stages = "[{prune: {method: ffn, sparsity: 0.5}}]";
  run(stages, "out");
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  interrupt(stages, "prune FFN", 2);
  const fs::path steps = path("out.resume") / "reduced-0.steps";
  const fs::path damaged = steps / "block-00000/model.safetensors";
  std::string octets = read_file(damaged);
  octets.back() ^= 1;
  write_file_atomically(damaged, octets);
  fs::remove(steps / "reduced-types-00001");
  run(stages, "out");
  EXPECT_EQ(files_of(path("out")), whole);
  fs::remove_all(path("out"));
  // Block 1 under the name of block 0 is read, and is not what is looked for.
  interrupt(stages, "prune FFN", 2);
  fs::remove_all(steps / "block-00000");
  fs::rename(steps / "block-00001", steps / "block-00000");
  EXPECT_THROW(run(stages, "out"), Error);
}

TEST_F(StructuredRun, LearnsMasksAndTheirWeightsOnAfterAnInterruption) {
  const std::string stages =
      "[{prune: {method: ffn, sparsity: 0.5, importance: learned, mask_steps: "
      "4, mask_batch: 2, mask_weight_rate: 1e-3, heal: false}}, {prune: "
      "{method: depth, sparsity: 0.25}}]";
  run(stages, "out");
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  // The steps that are learned until `phase` has done so much.
  const auto learned_until = [&](const std::string& phase, std::size_t done) {
    std::vector<std::size_t> learned;
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase == "train") learned.push_back(event.done);
      if (event.phase.starts_with(phase) && event.done == done) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(stages, "out", options), Error);
    return learned;
  };
  using Steps = std::vector<std::size_t>;
  EXPECT_EQ(learned_until("train", 3), (Steps{1, 2, 3}));
  EXPECT_EQ(learned_until("prune FFN", 1), (Steps{3, 4}));
  EXPECT_EQ(learned_until("prune FFN", 2), Steps{});
  EXPECT_EQ(learned_until("prune blocks", 1), Steps{});
  run(stages, "out");
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

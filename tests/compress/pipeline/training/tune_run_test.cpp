// The stage `tune` in a run of the shipped model.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "compress/pipeline/adapters/adapter_beside.h"
#include "compress/pipeline/adapters/adapter_merge.h"
#include "compress/pipeline/run/run.h"
#include "compress/surgery/checkpoint_overlay.h"
#include "formats/adapters/bottleneck_adapter.h"
#include "formats/adapters/difference_adapter.h"
#include "formats/adapters/peft_adapter.h"
#include "formats/adapters/virtual_tokens.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kEvaluate =
    "evaluate: {text: " + shipped("text/evaluation.txt").string() +
    ", context: 64, max_windows: 4}\n";

class TuneRun : public testing::Test {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }

  static std::string tune(const std::string& more) {
    return "{tune: {text: " + shipped("text/calibration.txt").string() +
           ", steps: 6, sequence_length: 32, batch_size: 2, learning_rate: "
           "0.003, evaluate_sequences: 4, checkpoint_every: 2, rank: 4" +
           more + "}}";
  }

  RunReport run(const std::string& stages, const std::string& out,
                const std::string& format = "peft",
                const RunOptions& options = {}, const std::string& more = "",
                const fs::path& model = {}) {
    Recipe recipe = small_recipe(stages, path(out), more);
    recipe.output->format = format;
    if (!model.empty()) recipe.model = model;
    return run_recipe(recipe, options, pool_);
  }

  std::string refusal(const std::string& stages,
                      const std::string& format = "peft",
                      const fs::path& model = {}) {
    try {
      (void)run(stages, "refused", format, {}, "", model);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(path("refused")));
      EXPECT_FALSE(fs::exists(path("refused.resume")));
      return error.what();
    }
    ADD_FAILURE() << "accepted: " << stages;
    return "";
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(TuneRun, WritesAnAdapterAsPeftDoesAndEvaluatesItBesideItsBase) {
  const RunReport report =
      run("[" + tune(", method: rslora, alpha: 6, targets: [q_proj, up_proj]") +
              "]",
          "out", "peft", {}, kEvaluate);
  const PeftAdapter adapter = read_peft_adapter(path("out"));
  EXPECT_EQ(adapter.modules.size(), 8u);
  EXPECT_EQ(adapter.config.rank, 4u);
  EXPECT_EQ(adapter.config.alpha, 6);
  EXPECT_TRUE(adapter.config.use_rslora);
  EXPECT_FALSE(adapter.config.use_dora);
  const auto files = files_of(path("out"));
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors",
                           "llmpress.json", "recipe.yaml", "training.json"}) {
    EXPECT_TRUE(files.contains(name)) << name;
  }
  const VariantReport& variant = report.variants.at(0);
  ASSERT_EQ(variant.training.size(), 1u);
  EXPECT_EQ(variant.training[0].stage, "tune");
  ASSERT_TRUE(variant.evaluation && report.base);
  EXPECT_NE(variant.evaluation->perplexity, report.base->perplexity);
  EXPECT_LT(variant.evaluation->perplexity, 1.2 * report.base->perplexity);
  EXPECT_EQ(variant.size.weights - report.base_size.weights,
            variant.training[0].parameters);
  EXPECT_FALSE(fs::exists(path("out.resume")));
  // Its own output may be written again.
  EXPECT_NO_THROW(run("[" + tune("") + "]", "out"));
  EXPECT_EQ(read_peft_adapter(path("out")).modules.size(), 28u);
}

class InterruptedTuneRun : public TuneRun,
                           public testing::WithParamInterface<std::string> {};

TEST_P(InterruptedTuneRun, EndsInTheSameBytes) {
  const std::string stages = "[" + tune(", method: dora") + "]";
  (void)run(stages, "whole", GetParam());
  auto wanted = files_of(path("whole"));
  const std::string weights =
      GetParam() == "peft" ? "adapter_model.safetensors" : "model.safetensors";
  for (const std::size_t step : {1u, 5u}) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase == "train" && event.done == step) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(stages, "out", GetParam(), options), Error);
    EXPECT_FALSE(fs::exists(path("out")));
    EXPECT_TRUE(fs::exists(path("out.resume")));
    (void)run(stages, "out", GetParam());
    EXPECT_EQ(files_of(path("out")).at(weights), wanted.at(weights));
    fs::remove_all(path("out"));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, InterruptedTuneRun,
                         testing::Values("peft", "compressed-tensors"),
                         [](const auto& row) {
                           return row.index == 0 ? "peft" : "merged";
                         });

TEST_F(TuneRun, MergesForTheStagesThatFollowAndLeavesTheRestAlone) {
  (void)run("[" + tune(", targets: q_proj") + "]", "merged",
            "compressed-tensors");
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const auto merged = open_checkpoint(path("merged"));
  std::set<std::string> changed;
  for (const TensorInfo& info : base->tensors().tensors()) {
    const TensorInfo& other = merged->tensors().require(info.name);
    ASSERT_EQ(other.dtype, info.dtype);
    if (!std::ranges::equal(base->tensors().read(info).bytes,
                            merged->tensors().read(other).bytes)) {
      changed.insert(info.name);
    }
  }
  EXPECT_EQ(changed.size(), 4u);
  for (const std::string& name : changed) {
    EXPECT_TRUE(name.ends_with("q_proj.weight")) << name;
  }
  const RunReport report =
      run("[" + tune("") + ", {quantize: {method: rtn, scheme: W4A16}}]",
          "packed", "compressed-tensors", {}, kEvaluate);
  EXPECT_LT(report.variants[0].size.weight_bytes,
            report.base_size.weight_bytes);
  EXPECT_LT(report.variants[0].evaluation->perplexity,
            2 * report.base->perplexity);
}

TEST_F(TuneRun, TunesBesideAPackedBaseButDoesNotMergeIntoIt) {
  (void)run("[{quantize: {method: rtn, scheme: W4A16}}]", "w4",
            "compressed-tensors");
  (void)run("[" + tune("") + "]", "q", "peft", {}, kEvaluate, path("w4"));
  EXPECT_EQ(read_peft_adapter(path("q")).modules.size(), 28u);
  EXPECT_NE(refusal("[" + tune("") + "]", "compressed-tensors", path("w4"))
                .find("is packed"),
            std::string::npos);
}

// Methods that put tokens before the text.
class VirtualTuneRun : public TuneRun,
                       public testing::WithParamInterface<std::string> {
 protected:
  static std::string tokens(const std::string& more = "") {
    return "[{tune: {text: " + shipped("text/calibration.txt").string() +
           ", steps: 6, sequence_length: 32, batch_size: 2, learning_rate: "
           "0.01, evaluate_sequences: 4, checkpoint_every: 2, "
           "num_virtual_tokens: 5, method: " +
           GetParam() + more + "}}]";
  }
};

TEST_P(VirtualTuneRun, WritesWhatEvaluationsReadBack) {
  const RunReport report = run(tokens(), "out", "peft", {}, kEvaluate);
  const VirtualTokens learned = read_virtual_tokens(path("out"));
  EXPECT_EQ(learned.rows.rows(), 5u);
  EXPECT_EQ(learned.rows.size(), report.variants.at(0).training[0].parameters);
  EXPECT_NE(report.variants[0].evaluation->perplexity, report.base->perplexity);
  EXPECT_LT(report.variants[0].evaluation->perplexity,
            1.2 * report.base->perplexity);
  (void)run(tokens(", init: random, init_seed: 3"), "random");
  EXPECT_FALSE(std::ranges::equal(
      read_virtual_tokens(path("random")).rows.data(), learned.rows.data()));
}

TEST_P(VirtualTuneRun, EndsInTheSameBytesWhereverItStopped) {
  (void)run(tokens(), "whole");
  for (const std::size_t step : {1u, 5u}) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase == "train" && event.done == step) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(tokens(), "out", "peft", options), Error);
    (void)run(tokens(), "out");
    EXPECT_EQ(files_of(path("out")).at("adapter_model.safetensors"),
              files_of(path("whole")).at("adapter_model.safetensors"));
    fs::remove_all(path("out"));
  }
}

TEST_P(VirtualTuneRun, IsNeverMerged) {
  EXPECT_NE(refusal(tokens(), "compressed-tensors").find("cannot be merged"),
            std::string::npos);
  (void)run(tokens(), "out");
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const Architecture arch = read_architecture(*base);
  try {
    (void)merge_adapters(*base, arch, {{path("out"), 1}}, {}, pool_);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("cannot be merged"),
              std::string::npos);
  }
  EXPECT_THROW(
      (void)keep_beside(*base, arch, {{path("out"), 2}}, best_isa(), pool_),
      Error);
  EXPECT_THROW(
      (void)keep_beside(*base, arch, {{path("out"), 1}, {path("out"), 1}},
                        best_isa(), pool_),
      Error);
}

TEST_P(VirtualTuneRun, RefusesATextThatIsTooShort) {
  try {
    (void)run("[{tune: {text: " + shipped("text/calibration.txt").string() +
                  ", steps: 2, sequence_length: 32, batch_size: 2, "
                  "num_virtual_tokens: 65536, method: " +
                  GetParam() + "}}]",
              "out");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'num_virtual_tokens' 65536"),
              std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(fs::exists(path("out")));
}

INSTANTIATE_TEST_SUITE_P(Methods, VirtualTuneRun,
                         testing::Values("prefix", "prompt"),
                         [](const auto& row) { return row.param; });

// Methods that PEFT has no files for.
class OwnTuneRun : public TuneRun {
 protected:
  static std::string own(const std::string& more) {
    return "[{tune: {text: " + shipped("text/calibration.txt").string() +
           ", steps: 9, sequence_length: 32, batch_size: 2, learning_rate: "
           "0.003, evaluate_sequences: 4, checkpoint_every: 2, method: " +
           more + "}}]";
  }

  // Logits of a text beside the base.
  MatrixF beside(const Checkpoint& base, const std::string& adapter) {
    const auto kept = keep_beside(base, read_architecture(base),
                                  {{path(adapter), 1}}, best_isa(), pool_);
    return logits(*kept.checkpoint, kept.companion);
  }
  MatrixF logits(const Checkpoint& model,
                 std::shared_ptr<const WeightCompanion> companion = nullptr) {
    const Decoder decoder(model, {.companion = std::move(companion)});
    const std::vector<TokenId> tokens{1, 17, 300, 4, 99, 5};
    const Segment all{.rows = tokens.size()};
    const MatrixF hidden = decoder.forward(tokens, {&all, 1}, pool_);
    return decoder.ends().logits(hidden.view(), pool_);
  }

  void expect_same_bytes_after_stops(const std::string& stages) {
    (void)run(stages, "whole");
    for (const std::size_t step : {1u, 5u, 8u}) {
      const RunOptions options{.progress = [&](const ProgressEvent& event) {
        if (event.phase == "train" && event.done == step) {
          throw Error(ErrorCode::kCancelled, "stop");
        }
      }};
      EXPECT_THROW(run(stages, "out", "peft", options), Error);
      (void)run(stages, "out");
      EXPECT_EQ(files_of(path("out")).at("adapter_model.safetensors"),
                files_of(path("whole")).at("adapter_model.safetensors"));
      fs::remove_all(path("out"));
    }
  }
};

TEST_F(OwnTuneRun, PutsBottlenecksBehindWhatAddsToTheStream) {
  const RunReport report =
      run(own("bottleneck, bottleneck_size: 6, activation: silu"), "out",
          "peft", {}, kEvaluate);
  const PeftAdapter adapter = read_bottleneck_adapter(path("out"));
  EXPECT_EQ(adapter.modules.size(), 8u);  // o_proj and down_proj of 4 blocks
  const PeftBottleneck& read = *adapter.modules.begin()->second.bottleneck;
  EXPECT_EQ(read.down.rows(), 6u);
  EXPECT_EQ(read.activation, "silu");
  EXPECT_LT(report.variants.at(0).evaluation->perplexity,
            1.2 * report.base->perplexity);
  EXPECT_NE(report.variants[0].evaluation->perplexity, report.base->perplexity);
  EXPECT_EQ(report.variants[0].size.weights - report.base_size.weights,
            report.variants[0].training[0].parameters);
  (void)run(own("bottleneck, placement: pfeiffer"), "mlp");
  const PeftAdapter mlp = read_bottleneck_adapter(path("mlp"));
  EXPECT_EQ(mlp.modules.size(), 4u);
  for (const auto& [name, module] : mlp.modules) {
    EXPECT_TRUE(name.ends_with("down_proj")) << name;
  }
}

TEST_F(OwnTuneRun, NeverMergesABottleneck) {
  EXPECT_NE(
      refusal(own("bottleneck"), "compressed-tensors").find("cannot be merged"),
      std::string::npos);
  (void)run(own("bottleneck"), "out");
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const Architecture arch = read_architecture(*base);
  EXPECT_THROW((void)merge_adapters(*base, arch, {{path("out"), 1}}, {}, pool_),
               Error);
  EXPECT_THROW(
      (void)keep_beside(*base, arch, {{path("out"), 2}}, best_isa(), pool_),
      Error);
  expect_same_bytes_after_stops(own("bottleneck"));
}

TEST_F(OwnTuneRun, KeepsAsManyDifferencesAsItMayAndMergesThem) {
  const std::string stages =
      own("diff_pruning, keep: 0.01, targets: [q_proj, up_proj]");
  (void)run(stages, "out");
  const PeftAdapter adapter = read_difference_adapter(path("out"));
  EXPECT_EQ(adapter.modules.size(), 8u);
  std::size_t numbers = 0, kept = 0;
  for (const auto& [name, module] : adapter.modules) {
    numbers += module.difference.rows * module.difference.cols;
    kept += module.difference.values.size();
  }
  EXPECT_EQ(kept, numbers / 100);
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const Architecture arch = read_architecture(*base);
  const MatrixF found = beside(*base, "out");
  AdapterMerge merge =
      merge_adapters(*base, arch, {{path("out"), 1}}, {}, pool_);
  EXPECT_EQ(merge.merged.size(), 8u);
  merge.edits.dtype = DType::kF32;
  const auto merged = overlay(*base, std::move(merge.edits));
  const MatrixF wanted = logits(*merged), plain = logits(*base);
  EXPECT_FALSE(std::ranges::equal(wanted.data(), plain.data()));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_NEAR(found.data()[i], wanted.data()[i], 1e-3f);
  }
  // And taken out again.
  AdapterMerge back =
      unmerge_adapters(*merged, arch, {{path("out"), 1}}, pool_);
  back.edits.dtype = DType::kF32;
  const MatrixF again = logits(*overlay(*merged, std::move(back.edits)));
  for (std::size_t i = 0; i < plain.size(); ++i) {
    ASSERT_NEAR(again.data()[i], plain.data()[i], 1e-3f);
  }
  (void)run(stages, "merged", "compressed-tensors");
  EXPECT_EQ(open_checkpoint(path("merged"))->tensors().tensors().size(),
            base->tensors().tensors().size());
  expect_same_bytes_after_stops(stages);
}

TEST_F(OwnTuneRun, GivesTheSameDifferenceAtAnyNumberOfThreads) {
  const std::string stages = own("diff_pruning, keep: 0.02");
  (void)run(stages, "two");
  ThreadPool three(3);
  Recipe recipe = small_recipe(stages, path("three"));
  recipe.output->format = "peft";
  (void)run_recipe(recipe, {}, three);
  EXPECT_EQ(files_of(path("two")).at("adapter_model.safetensors"),
            files_of(path("three")).at("adapter_model.safetensors"));
}

TEST_F(TuneRun, RefusesBeforeWork) {
  const auto expect = [&](const std::string& found, const std::string& wanted) {
    EXPECT_NE(found.find(wanted), std::string::npos) << found;
  };
  expect(refusal("[" + tune(", targets: [up_porj]") + "]"),
         "did you mean 'up_proj'");
  expect(refusal("[" + tune(", targets: [Linear, lm_head]") + "]"),
         "'lm_head'");
  expect(refusal("[]"), "found none");
  expect(refusal("[" + tune("") + ", {quantize: {method: rtn}}]"),
         "stands alone");
  expect(refusal("[" + tune("") + ", " + tune("") + "]"), "stands alone");
}

}  // namespace
}  // namespace llmpress

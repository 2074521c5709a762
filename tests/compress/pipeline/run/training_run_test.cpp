// Training and distillation as stages of a run.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "compress/core/error.h"
#include "compress/pipeline/run/run.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kText = shipped("text/calibration.txt").string();
const std::string kSmall =
    ", sequence_length: 32, batch_size: 4, learning_rate: 1e-3, "
    "evaluate_every: 2, evaluate_sequences: 4";

std::string train_stage(const std::string& more) {
  return "{train: {text: " + kText + kSmall + more + "}}";
}
std::string distill_stage(const std::string& more) {
  return "{distill: {text: " + kText + kSmall + more + "}}";
}

class TrainingRun : public testing::Test {
 protected:
  fs::path path(const std::string& name) { return directory_.path() / name; }
  std::string file(const std::string& name, const std::string& content) {
    std::ofstream(path(name)) << content;
    return path(name).string();
  }
  RunReport run(const std::string& stages, const std::string& out,
                const RunOptions& options = {}) {
    return run_recipe(small_recipe("[" + stages + "]", path(out), ""), options,
                      pool_);
  }
  void interrupt(const std::string& stages, std::size_t done) {
    const RunOptions options{.progress = [&](const ProgressEvent& event) {
      if (event.phase == "train" && event.done == done) {
        throw Error(ErrorCode::kCancelled, "stop");
      }
    }};
    EXPECT_THROW(run(stages, "out", options), Error);
    EXPECT_FALSE(fs::exists(path("out")));
  }
  void expect_refused(const std::string& stages, const std::string& why) {
    try {
      run(stages, "refused");
      ADD_FAILURE() << "nothing was refused";
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(path("refused")));
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos)
          << error.what();
    }
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(TrainingRun, LearnsTheTextAndReportsTheCurve) {
  const RunReport report = run(train_stage(", steps: 6"), "out");
  ASSERT_EQ(report.variants[0].training.size(), 1u);
  const TrainingReport& training = report.variants[0].training[0];
  EXPECT_EQ(training.stage, "train");
  EXPECT_EQ(training.progress.curve.size(), 7u);
  EXPECT_LT(training.after.total, training.before.total);
  EXPECT_NE(to_json(report).find("\"training\""), std::string::npos);
  EXPECT_NE(to_html(report).find("Loss of stage"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("out.resume")));
  EXPECT_TRUE(fs::exists(path("out") / "tokenizer.json"));
}

TEST_F(TrainingRun, EndsInTheSameBytesAfterInterruptions) {
  const std::string stages =
      train_stage(", steps: 7, checkpoint_every: 2") + ", " +
      distill_stage(", steps: 3, student: {every: 2}, hidden: 0.5") +
      ", {quantize: {method: rtn, weights: {bits: 4, group_size: 32}}}";
  run(stages, "out");
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  interrupt(stages, 1);
  interrupt(stages, 5);
  EXPECT_TRUE(fs::exists(path("out.resume") / "trained-0.training"));
  run(stages, "out");
  // Not EXPECT_EQ, which would print them.
  EXPECT_TRUE(files_of(path("out")) == whole);
  const auto artifact = open_checkpoint(path("out"));
  EXPECT_EQ(parse_architecture(artifact->config_json(), "out").layers, 2u);
}

TEST_F(TrainingRun, RecoversWhatPruningTookFromTheRecipesOwnModel) {
  const RunReport report =
      run("{prune: {method: ffn, sparsity: 0.5, importance: weights, heal: "
          "false}}, " +
              distill_stage(", steps: 12, cross_entropy: 0, divergence: 1"),
          "out");
  const TrainingReport& training = report.variants[0].training[0];
  EXPECT_LT(training.after.divergence, 0.7 * training.before.divergence);
  EXPECT_GT(training.after.cross_entropy, 0);  // measured, not learned from
}

TEST_F(TrainingRun, TrainsAModelOfAGivenShapeFromNothing) {
  const std::string config = file("config.json", R"({
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048,
    "max_position_embeddings": 64, "tie_word_embeddings": true})");
  const RunReport report =
      run(train_stage(", steps: 20, student: {config: " + config + "}"), "out");
  const TrainingReport& training = report.variants[0].training[0];
  EXPECT_NEAR(training.before.total, std::log(2048.0), 0.1);
  EXPECT_LT(training.after.total, training.before.total - 0.05);
  const auto artifact = open_checkpoint(path("out"));
  EXPECT_EQ(parse_architecture(artifact->config_json(), "out").hidden, 32u);
}

class TrainingFromNothing : public TrainingRun {
 protected:
  // A folder with a config.json and a tokenizer, and the recipe that trains it.
  Recipe recipe(const std::string& stage, const std::string& out) {
    fs::create_directory(path("shape"));
    for (const char* const name : {"config.json", "tokenizer.json"}) {
      fs::copy_file(shipped("tinystories-3.7m") / name, path("shape") / name,
                    fs::copy_options::skip_existing);
    }
    Recipe recipe = small_recipe(
        "[{" + stage + ": {text: " + kText + kSmall +
            ", steps: 4, student: {config: " +
            (path("shape") / "config.json").string() + ", seed: 3}}}]",
        path(out),
        "evaluate: {text: " + kText + ", context: 64, max_windows: 4}\n");
    recipe.model = path("shape");
    return recipe;
  }
};

TEST_F(TrainingFromNothing, NeedsNoWeightsToBeginWith) {
  const RunReport report = run_recipe(recipe("train", "out"), {}, pool_);
  EXPECT_GT(report.base->perplexity, 1800);  // as good as none of 2048
  EXPECT_LT(report.base->perplexity, 2400);
  EXPECT_LT(report.variants[0].evaluation->perplexity,
            0.95 * report.base->perplexity);
  EXPECT_FALSE(fs::exists(path("out.untrained")));
  EXPECT_TRUE(
      open_checkpoint(path("out"))->has_linear("model.layers.3.mlp.down_proj"));
}

TEST_F(TrainingFromNothing, RefusesAModelWithoutWeightsAsTeacher) {
  try {
    run_recipe(recipe("distill", "refused"), {}, pool_);
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.safetensors"),
              std::string::npos);
  }
}

TEST_F(TrainingRun, RefusesWhatCannotBeLearnedFrom) {
  const auto with_text = [&](const std::string& text, const std::string& more) {
    return "{train: {text: " + text + ", steps: 1" + more + "}}";
  };
  expect_refused(with_text(file("empty.txt", ""), ""), "empty.txt");
  expect_refused(with_text(kText, ", batch_size: 100000"),
                 "smaller 'batch_size'");
  expect_refused(with_text(file("few.txt", "A word."), ""), "few.txt");
  expect_refused(
      train_stage(", steps: 40, learning_rate: 1e3, clip: 0, warmup: 0"),
      "learning_rate");
}

TEST_F(TrainingRun, RefusesATeacherWithOtherTokens) {
  const fs::path teacher = path("teacher");
  fs::copy(shipped("tinystories-3.7m"), teacher, fs::copy_options::recursive);
  fs::remove(teacher / "tokenizer.model");
  const fs::path file = teacher / "tokenizer.json";
  fs::permissions(file, fs::perms::owner_all);
  auto tokenizer = nlohmann::ordered_json::parse(read_file(file));
  auto& vocabulary = tokenizer["model"]["vocab"];
  std::swap(vocabulary["\xE2\x96\x81the"], vocabulary["\xE2\x96\x81"
                                                      "and"]);
  std::ofstream(file) << tokenizer.dump();
  expect_refused(distill_stage(", steps: 1, teacher: " + teacher.string()),
                 "cannot be compared");
}

}  // namespace
}  // namespace llmpress

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

TEST_F(TrainingRun, LearnsTheSameFromAStoredTeacher) {
  const std::string taught = ", steps: 4, student: {every: 2}, top_k: 6";
  run(distill_stage(taught), "live");
  const std::string file = path("said.h5").string();
  const std::string stages = distill_stage(taught + ", teacher_cache: " + file);
  run(stages, "out");
  const auto weights = [&](const std::string& out) {
    return read_file(path(out) / "model.safetensors");
  };
  EXPECT_TRUE(weights("out") == weights("live"));
  // The second time nothing is written anew.
  const auto when = fs::last_write_time(file);
  run(stages, "again");
  EXPECT_TRUE(weights("again") == weights("live"));
  EXPECT_EQ(fs::last_write_time(file), when);
}

TEST_F(TrainingRun, RefusesWhatAnotherTeacherSaid) {
  const std::string file = path("said.h5").string();
  const auto stage = [&](const std::string& more) {
    return distill_stage(
        ", steps: 2, student: {every: 2}, teacher_cache: " + file + more);
  };
  run(stage(", top_k: 6"), "out");
  expect_refused(stage(", top_k: 7"), "'top_k' is '6', wanted '7'");
  expect_refused(stage(", top_k: 6, temperature: 2"), "temperature");
  const std::string other = path("other.txt").string();
  std::ofstream(other) << read_file(kText) << " And more.";
  expect_refused("{distill: {text: " + other + kSmall +
                     ", steps: 2, top_k: 6, teacher_cache: " + file + "}}",
                 "text_sha256");
  const std::string whole = read_file(file);
  for (const std::size_t size : {whole.size() / 2, whole.size() - 1}) {
    std::ofstream(file, std::ios::binary) << whole.substr(0, size);
    expect_refused(stage(", top_k: 6"), "said.h5");
  }
  std::ofstream(file, std::ios::binary) << "no such file";
  expect_refused(stage(", top_k: 6"), "no file of what a teacher said");
}

TEST_F(TrainingRun, GoesOnStoringTheTeacherAfterAnInterruption) {
  const auto stages = [&](const std::string& file) {
    return distill_stage(
        ", steps: 2, student: {every: 2}, top_k: 6, "
        "teacher_cache: " +
        path(file).string());
  };
  run(stages("whole.h5"), "whole");
  const RunOptions options{.progress = [&](const ProgressEvent& event) {
    if (event.phase == "teacher" && event.done == 2) {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run(stages("said.h5"), "out", options), Error);
  EXPECT_FALSE(fs::exists(path("said.h5")));
  EXPECT_TRUE(fs::exists(path("out.resume") / "trained-0.training" / "teacher" /
                         "text.part.00001.safetensors"));
  run(stages("said.h5"), "out");
  EXPECT_TRUE(read_file(path("said.h5")) == read_file(path("whole.h5")));
}

TEST_F(TrainingRun, RefusesWhatAStoredTeacherCannotTell) {
  const auto refused = [&](const std::string& more, const std::string& why) {
    expect_refused(distill_stage(", steps: 1, teacher_cache: x.h5" + more),
                   why);
  };
  refused("", "needs 'top_k'");
  refused(", top_k: 4, hidden: 1", "look into");
  refused(", top_k: 4, relation: 1", "look into");
  refused(", top_k: 4, on_policy: 0.5", "nobody knows beforehand");
  expect_refused(distill_stage(", steps: 1, on_policy: 0.5, divergence: 0"),
                 "nothing else judges");
  expect_refused(distill_stage(", steps: 1, loss: jsd, top_k: 4"),
                 "belongs to loss 'forward_kl'");
}

TEST_F(TrainingRun, LearnsFromRelationsAndFromItsOwnTexts) {
  const RunReport report =
      run(distill_stage(", steps: 8, student: {every: 2}, relation: 1, "
                        "on_policy: 0.5, on_policy_prompt: 8, loss: jsd, "
                        "beta: 0.3"),
          "out");
  const TrainingReport& training = report.variants[0].training[0];
  EXPECT_LT(training.after.relation, training.before.relation);
  std::size_t own = 0;
  for (const TrainingPoint& point : training.progress.curve) {
    own += point.loss.on_policy > 0 ? 1u : 0u;
  }
  EXPECT_GT(own, 0u);
  EXPECT_LT(own, 8u);
}

TEST_F(TrainingRun, RefusesWeightsThatAreNoNumbers) {
  const fs::path broken = path("broken");
  fs::copy(shipped("tinystories-3.7m"), broken, fs::copy_options::recursive);
  const fs::path file = broken / "model.safetensors";
  fs::permissions(file, fs::perms::owner_all);
  // The last octets are of some weight.
  const std::string whole = read_file(file);
  std::ofstream(file, std::ios::binary)
      << whole.substr(0, whole.size() - 64) + std::string(64, '\xff');
  const auto with_model = [&](const std::string& stage) {
    Recipe recipe = small_recipe("[" + stage + "]", path("out"), "");
    recipe.model = broken;
    EXPECT_THROW((void)run_recipe(recipe, {}, pool_), Error) << stage;
    EXPECT_FALSE(fs::exists(path("out")));
  };
  with_model(train_stage(", steps: 2"));
  with_model(distill_stage(", steps: 2"));
  // A teacher of its own is no better.
  expect_refused(distill_stage(", steps: 2, teacher: " + broken.string()), "");
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

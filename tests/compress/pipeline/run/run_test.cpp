#include "compress/pipeline/run/run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "compress/core/error.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/evaluation/verification.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kGptq =
    "[{quantize: {method: gptq, weights: {bits: 4, group_size: 32}}}]";
const std::string kEvaluate =
    "evaluate: {text: " + shipped("text/evaluation.txt").string() +
    ", context: 64, max_windows: 8}\n";

class RunRecipe : public testing::Test {
 protected:
  RunReport run(const Recipe& recipe, const RunOptions& options = {}) {
    return run_recipe(recipe, options, pool_);
  }
  fs::path path(const std::string& name) { return directory_.path() / name; }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

TEST_F(RunRecipe, WritesAnArtifactThatVerifiesAndEvaluates) {
  const RunReport report = run(small_recipe(kGptq, path("out"), kEvaluate));
  ASSERT_EQ(report.variants.size(), 1u);
  const VariantReport& variant = report.variants[0];
  EXPECT_EQ(variant.layers.size(), 28u);
  // 4 bits, an f16 scale and a 4-bit zero for each 32 weights.
  EXPECT_DOUBLE_EQ(variant.size.linear_bits_per_weight(), 4.625);
  ASSERT_TRUE(variant.evaluation && report.base);
  EXPECT_NEAR(variant.evaluation->perplexity / report.base->perplexity, 1.0,
              0.1);
  EXPECT_GT(variant.divergence->kl_mean, 0);

  const auto artifact = open_checkpoint(path("out"));
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const Architecture arch = parse_architecture(artifact->config_json(), "out");
  const Verification verification = verify(*artifact, arch, base.get(), pool_);
  EXPECT_TRUE(verification.count(FindingKind::kError) == 0);
  for (const VerifiedLinear& linear : verification.linears) {
    EXPECT_GT(*linear.relative_error, 0.001) << linear.name;
    EXPECT_LT(*linear.relative_error, 0.3) << linear.name;
  }
  for (const char* file : {"tokenizer.json", "tokenizer.model", "config.json",
                           "recipe.yaml", "llmpress.json"}) {
    EXPECT_TRUE(fs::exists(path("out") / file)) << file;
  }
}

TEST_F(RunRecipe, WritesTheSameBytesAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  run_recipe(small_recipe(kGptq, path("a")), {}, one);
  run_recipe(small_recipe(kGptq, path("b")), {}, three);
  auto a = files_of(path("a")), b = files_of(path("b"));
  a.erase("recipe.yaml");  // holds the output's own path
  b.erase("recipe.yaml");
  EXPECT_EQ(a, b);
}

// Stops a run of `recipe` before its third block.
void interrupt(const Recipe& recipe, ThreadPool& pool) {
  const RunOptions interrupted{.progress = [](const ProgressEvent& event) {
    if (event.detail == "model.layers.2") {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run_recipe(recipe, interrupted, pool), Error);
}

TEST_F(RunRecipe, ADamagedBlockOfAnInterruptedRunIsCompressedAgain) {
  const Recipe recipe = small_recipe(kGptq, path("out"));
  run(recipe);
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));
  interrupt(recipe, pool_);
  const fs::path weights =
      path("out.resume") / "block-00000" / "model.safetensors";
  std::string octets = read_file(weights);
  octets[octets.size() / 2] ^= 1;
  std::ofstream(weights, std::ios::binary) << octets;

  std::string damaged;
  int resumed = 0;
  const RunOptions second{.log = [&](const std::string& line) {
    if (line.find("hashes differ") != std::string::npos) damaged += line;
    resumed += line.starts_with("resumed");
  }};
  run(recipe, second);
  EXPECT_EQ(resumed, 1);
  EXPECT_TRUE(damaged.starts_with("model.layers.0 ")) << damaged;
  EXPECT_EQ(files_of(path("out")), whole);
}

// Stops a run of `recipe` when it tells of a Linear.
void interrupt_at(const Recipe& recipe, const std::string& linear,
                  ThreadPool& pool) {
  const RunOptions interrupted{.log = [&](const std::string& line) {
    if (line.find(linear) != std::string::npos) {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run_recipe(recipe, interrupted, pool), Error);
}

TEST_F(RunRecipe, GoesOnWithinABlock) {
  const std::string runs[] = {
      kGptq,
      "[{quantize: {method: gptq, asymmetric_calibration: true, weights: "
      "{bits: 4, group_size: 32}}}]",
      "[{quantize: {method: awq, weights: {bits: 4, group_size: 32}}}]",
      "[{prune: {method: sparsegpt, sparsity: 0.5}}]"};
  for (const std::string& stages : runs) {
    const Recipe recipe = small_recipe(stages, path("out"));
    run(recipe);
    const auto whole = files_of(path("out"));
    fs::remove_all(path("out"));
    interrupt_at(recipe, "model.layers.1.mlp.down_proj", pool_);
    const fs::path linears = path("out.resume") / "linears-00001";
    EXPECT_TRUE(fs::exists(linears)) << stages;
    EXPECT_FALSE(fs::exists(path("out.resume") / "linears-00000")) << stages;
    // One that is damaged is found again, with those of its input.
    std::string octets = read_file(linears / "4");
    octets[octets.size() / 2] ^= 1;
    std::ofstream(linears / "4", std::ios::binary) << octets;
    std::string resumed;
    const RunOptions second{.log = [&](const std::string& line) {
      if (line.starts_with("resumed")) resumed += line + "\n";
    }};
    const RunReport report = run(recipe, second);
    EXPECT_EQ(resumed,
              "resumed model.layers.0 from an interrupted run\n"
              "resumed 3 Linears of model.layers.1 from an interrupted run\n"
              "resumed 1 Linears of model.layers.1 from an interrupted run\n")
        << stages;
    EXPECT_EQ(report.variants[0].layers.size(), 28u);
    EXPECT_EQ(files_of(path("out")), whole) << stages;
    fs::remove_all(path("out"));
  }
}

TEST_F(RunRecipe, SaysWhatKeepsItFromGoingOn) {
  interrupt(small_recipe(kGptq, path("out")), pool_);
  Recipe other = small_recipe(
      "[{quantize: {method: gptq, weights: {bits: 3, group_size: 32}}}]",
      path("out"));
  other.calibration->samples = 3;
  std::string said;
  const RunOptions options{.log = [&](const std::string& line) {
    if (line.find("is not used") != std::string::npos) said = line;
  }};
  run(other, options);
  EXPECT_TRUE(said.ends_with("another calibration tokens, recipe")) << said;
}

TEST_F(RunRecipe, GoesOnFromTheLastFinishedBlockAfterAnInterruption) {
  const Recipe recipe = small_recipe(kGptq, path("out"));
  run(recipe);
  const auto whole = files_of(path("out"));
  fs::remove_all(path("out"));

  RunOptions interrupted{.progress = [](const ProgressEvent& event) {
    if (event.detail == "model.layers.2") {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run(recipe, interrupted), Error);
  EXPECT_FALSE(fs::exists(path("out")));

  int resumed = 0;
  RunOptions second{.log = [&](const std::string& line) {
    resumed += line.starts_with("resumed");
  }};
  const RunReport report = run(recipe, second);
  EXPECT_EQ(resumed, 2);
  EXPECT_EQ(report.variants[0].layers.size(), 28u);
  EXPECT_EQ(files_of(path("out")), whole);
  EXPECT_FALSE(fs::exists(path("out.resume")));
}

TEST_F(RunRecipe, DoesNotResumeBlocksOfAnotherRecipe) {
  RunOptions interrupted{.progress = [](const ProgressEvent& event) {
    if (event.detail == "model.layers.1") {
      throw Error(ErrorCode::kCancelled, "stop");
    }
  }};
  EXPECT_THROW(run(small_recipe(kGptq, path("out")), interrupted), Error);
  int resumed = 0;
  RunOptions second{.log = [&](const std::string& line) {
    resumed += line.starts_with("resumed");
  }};
  run(small_recipe("[{quantize: {method: rtn, scheme: W8A16}}]", path("out")),
      second);
  EXPECT_EQ(resumed, 0);
}

TEST_F(RunRecipe, LeavesIgnoredLinearsAsTheyWere) {
  const RunReport report = run(small_recipe(
      "[{quantize: {method: rtn, scheme: W4A16, ignore: ['re:.*down_proj']}}]",
      path("out")));
  const auto artifact = open_checkpoint(path("out"));
  const auto base = open_checkpoint(shipped("tinystories-3.7m"));
  const std::string name = "model.layers.1.mlp.down_proj";
  const auto kept = artifact->read_linear(name);
  EXPECT_EQ(std::get<DenseWeight>(kept.weight).data,
            std::get<DenseWeight>(base->read_linear(name).weight).data);
  const auto other = artifact->read_linear("model.layers.1.mlp.up_proj");
  EXPECT_TRUE(std::holds_alternative<GroupedIntWeight>(other.weight));
}

TEST_F(RunRecipe, EvaluatesInt8AndBf16WithinATenthOfAPercent) {
  const std::string whole_text =
      "evaluate: {text: " + shipped("text/evaluation.txt").string() +
      ", context: 256}\n";
  for (const char* scheme : {"W8A16", "BF16"}) {
    const RunReport report = run(small_recipe(
        "[{quantize: {method: rtn, scheme: " + std::string(scheme) + "}}]",
        path(scheme), whole_text));
    EXPECT_NEAR(report.variants[0].divergence->perplexity_ratio, 1, 1e-3)
        << scheme;
  }
}

TEST_F(RunRecipe, WritesOneHdf5FileThatEvaluatesLikeTheFolder) {
  Recipe recipe = small_recipe(kGptq, path("m.h5"), kEvaluate);
  recipe.output->format = "hdf5";
  const RunReport hdf5 = run(recipe);
  const RunReport folder = run(small_recipe(kGptq, path("m"), kEvaluate));
  EXPECT_EQ(hdf5.variants[0].evaluation->nll,
            folder.variants[0].evaluation->nll);
  const ModelSource source = open_model(path("m.h5"));
  EXPECT_EQ(source.tokenizer->encode_document("a cat"),
            load_tokenizer(path("m"))->encode_document("a cat"));
}

// 2:4 sparsity and int4 codes in one pass: what stays is a mask of exactly two
// of four, and the zeros cost less than a dense int4 weight.
TEST_F(RunRecipe, PrunesAndQuantizesInOnePass) {
  const RunReport report = run(small_recipe(
      "[{prune: {method: sparsegpt, pattern: '2:4', storage: sparse}}, "
      "{quantize: {method: gptq, weights: {bits: 4, group_size: 32}}}]",
      path("out"), kEvaluate));
  for (const LayerReport& layer : report.variants[0].layers) {
    EXPECT_GE(layer.sparsity, 0.5) << layer.name;
    EXPECT_LT(layer.bits_per_weight, 4.0) << layer.name;
    EXPECT_EQ(layer.method, "sparsegpt+gptq");
  }
  const auto linear =
      open_checkpoint(path("out"))->read_linear("model.layers.0.mlp.up_proj");
  EXPECT_EQ(std::get<SparseWeight>(linear.weight).pattern,
            SparsePattern::k2of4);
}

// What a broken input leaves behind: a clear error and no output.
class BrokenInput : public RunRecipe {
 protected:
  BrokenInput() {
    fs::create_directories(path("model"));
    for (const char* file : {"config.json", "model.safetensors",
                             "tokenizer.json", "tokenizer_config.json"}) {
      fs::copy_file(shipped("tinystories-3.7m") / file, path("model") / file);
    }
  }

  Recipe recipe() {
    Recipe recipe = small_recipe(kGptq, path("out"));
    recipe.model = path("model");
    return recipe;
  }

  void expect_error(ErrorCode code, const std::string& part) {
    try {
      run(recipe());
      FAIL() << "no error; expected " << part;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
          << e.what();
    }
    EXPECT_FALSE(fs::exists(path("out")));
  }

  void patch(const std::string& file, const std::string& from,
             const std::string& to) {
    std::string content = read_file(path("model") / file);
    const std::size_t at = content.find(from);
    ASSERT_NE(at, std::string::npos);
    content.replace(at, from.size(), to);
    write_file_atomically(path("model") / file, content);
  }
};

TEST_F(BrokenInput, TruncatedWeights) {
  fs::resize_file(path("model") / "model.safetensors", 1'000'000);
  expect_error(ErrorCode::kCorruptFile, "model.safetensors");
}

TEST_F(BrokenInput, NanWeight) {
  const auto reader = open_tensors(path("model"));
  const TensorInfo& info =
      reader->require("model.layers.1.self_attn.k_proj.weight");
  const std::string content = read_file(path("model") / "model.safetensors");
  const std::size_t header =
      8 + *reinterpret_cast<const std::uint64_t*>(content.data());
  const auto mapped = reader->read(info);
  const auto first = reader->read(reader->tensors()[0]);
  (void)first;
  // The tensor's bytes are unique enough to be found by content.
  const std::string bytes(reinterpret_cast<const char*>(mapped.bytes.data()),
                          64);
  std::string changed = content;
  const std::size_t at = changed.find(bytes, header);
  ASSERT_NE(at, std::string::npos);
  const float nan = std::nanf("");
  changed.replace(at + 8, 4, reinterpret_cast<const char*>(&nan), 4);
  write_file_atomically(path("model") / "model.safetensors", changed);
  expect_error(ErrorCode::kInvalidInput, "model.layers.1.self_attn.k_proj");
}

TEST_F(BrokenInput, MissingTensor) {
  patch("model.safetensors", "model.layers.3.mlp.up_proj.weight",
        "model.layers.3.mlp.up_prox.weight");
  expect_error(ErrorCode::kInvalidInput, "model.layers.3.mlp.up_proj");
}

TEST_F(BrokenInput, ConfigurationThatDoesNotFitTheTensors) {
  patch("config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
  expect_error(ErrorCode::kInvalidInput, "model.layers.4");
}

TEST_F(BrokenInput, TokenizerWithMoreTokensThanTheEmbedding) {
  patch("tokenizer.json", "\"added_tokens\": [",
        "\"added_tokens\": [{\"id\": 5000, \"content\": \"<x>\", "
        "\"special\": true, \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": false, \"normalized\": false},");
  fs::remove(path("model") / "tokenizer.model");
  expect_error(ErrorCode::kInvalidInput, "2048");
}

TEST_F(BrokenInput, NoCalibrationForAMethodThatNeedsIt) {
  Recipe recipe = this->recipe();
  recipe.calibration.reset();
  EXPECT_THROW(run(recipe), Error);
  EXPECT_FALSE(fs::exists(path("out")));
}

}  // namespace
}  // namespace llmpress

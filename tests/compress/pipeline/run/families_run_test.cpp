// Recipes on every family that has a small golden: what is written evaluates as
// the same weights in plain numbers do.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/core/rng.h"
#include "compress/model/decoder.h"
#include "compress/pipeline/run/run.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/hdf5_tables.h"
#include "recipes/recipe_parser.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// An artifact whose packed weights come as float32.
class Dequantized : public Checkpoint {
 public:
  explicit Dequantized(const Checkpoint& packed) : packed_(packed) {}
  const fs::path& path() const override { return packed_.path(); }
  const TensorReader& tensors() const override { return packed_.tensors(); }
  const std::string& config_json() const override {
    return packed_.config_json();
  }
  std::string_view format() const override { return packed_.format(); }
  bool has_linear(std::string_view name) const override {
    return packed_.has_linear(name);
  }
  const TensorInfo* plain_weight(std::string_view name) const override {
    return packed_.plain_weight(name);
  }
  LinearWeights read_linear(std::string_view name) const override {
    LinearWeights linear = packed_.read_linear(name);
    linear.weight = make_dense(dequantize(linear.weight).view(), DType::kF32);
    return linear;
  }

 private:
  const Checkpoint& packed_;
};

MatrixF logits_of(const Checkpoint& checkpoint, ThreadPool& pool) {
  const Decoder decoder(checkpoint);
  std::vector<TokenId> ids;
  Rng rng(3);
  for (std::size_t i = 0; i < 24; ++i) {
    ids.push_back(
        static_cast<TokenId>(rng.below(decoder.architecture().vocabulary)));
  }
  const Segment all{ids.size(), 0, nullptr};
  return decoder.ends().logits(decoder.forward(ids, {&all, 1}, pool).view(),
                               pool);
}

std::vector<float> floats_of(const TensorReader& reader,
                             const TensorInfo& info) {
  const TensorBytes data = reader.read(info);
  std::vector<float> values(data.bytes.size() / bytes_of(info.dtype, 1));
  decode_floats(info.dtype, data.bytes, values);
  return values;
}

class FamilyRuns : public testing::TestWithParam<fs::path> {
 protected:
  fs::path run(const std::string& stage, const std::string& calibration = "") {
    const std::size_t vocabulary =
        parse_architecture(open_checkpoint(GetParam())->config_json(), "golden")
            .vocabulary;
    write_ids(vocabulary);
    const Recipe recipe = parse_recipe(
        "model: " + GetParam().string() +
            "\ncalibration: {text: " + (directory_.path() / "ids.h5").string() +
            ", samples: 8, sequence_length: 24" + calibration + "}\nstages: [" +
            stage +
            "]\noutput: {path: " + (directory_.path() / "out").string() + "}\n",
        "test.yaml");
    report_ = run_recipe(recipe, {}, pool_);
    return directory_.path() / "out";
  }

  void write_ids(std::size_t vocabulary) const {
    std::vector<TokenId> ids;
    Rng rng(1);
    for (std::size_t i = 0; i < 8 * 24; ++i) {
      ids.push_back(static_cast<TokenId>(rng.below(vocabulary)));
    }
    write_token_table(directory_.path() / "ids.h5",
                      {.samples = 8, .length = 24, .ids = ids});
  }

  void expect_same_as_dequantized(const fs::path& artifact) {
    const auto packed = open_checkpoint(artifact);
    const MatrixF found = logits_of(*packed, pool_);
    const MatrixF wanted = logits_of(Dequantized(*packed), pool_);
    float largest = 0, worst = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::abs(wanted.data()[i]));
      worst = std::max(worst, std::abs(wanted.data()[i] - found.data()[i]));
    }
    EXPECT_LE(worst, 1e-3f * largest);
  }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
  RunReport report_;
};

// With what else stands in them: a head's bias.
TEST_P(FamilyRuns, EndsOfEightBitsEvaluateAsTheModel) {
  const auto base = open_checkpoint(GetParam());
  const Architecture arch = parse_architecture(base->config_json(), "golden");
  if (arch.input_width() % 8 != 0) GTEST_SKIP() << "no groups of 8";
  const fs::path artifact =
      run("{quantize: {targets: ['" + arch.head + "', '" + arch.embedding +
          "'], weights: {bits: 8, group_size: 8, symmetric: false}}}");
  expect_same_as_dequantized(artifact);
  const MatrixF wanted = logits_of(*base, pool_);
  const MatrixF found = logits_of(*open_checkpoint(artifact), pool_);
  double difference = 0, energy = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double w = double{wanted.data()[i]};
    difference += std::pow(double{found.data()[i]} - w, 2);
    energy += w * w;
  }
  // Attention without a scale is sharp: there noise of 0.3 % of each number of
  // the embedding moves random weights' logits by up to 0.5 % of their energy.
  const double most = arch.model_type == "gemma4_text" ? 0.1 : 0.01;
  EXPECT_LT(difference, most * energy);
}

TEST_P(FamilyRuns, GptaqOfFourBitsEvaluatesAsItsWeights) {
  expect_same_as_dequantized(
      run("{quantize: {method: gptq, asymmetric_calibration: true, weights: "
          "{bits: 4, group_size: 8}}}"));
}

TEST_P(FamilyRuns, GptqOfFourBitsEvaluatesAsItsWeights) {
  expect_same_as_dequantized(
      run("{quantize: {method: gptq, weights: {bits: 4, group_size: 8}}}"));
}

TEST_P(FamilyRuns, ShowsEveryTokenToEveryExpertIfAskedTo) {
  const fs::path artifact =
      run("{quantize: {method: gptq, weights: {bits: 4, group_size: 8}}}",
          ", experts: all_tokens");
  for (const LayerReport& layer : report_.variants[0].layers) {
    if (layer.method == "kept") continue;  // a router
    EXPECT_EQ(layer.calibration_tokens, 8u * 24u) << layer.name;
  }
  expect_same_as_dequantized(artifact);
}

TEST_P(FamilyRuns, Fp8EvaluatesAsItsWeights) {
  expect_same_as_dequantized(
      run("{quantize: {method: rtn, weights: {type: fp8, group_size: -1}}}"));
}

// With states in memory, where inputs of experts are kept of all tokens, and in a
// file, where they are made batch by batch.
TEST(FamilyBytes, AreTheSameWithStatesInAFile) {
  TemporaryDirectory directory;
  ThreadPool pool(2);
  const fs::path ids = directory.path() / "ids.h5";
  Rng rng(1);
  std::vector<TokenId> tokens(200 * 64);
  for (TokenId& id : tokens) id = static_cast<TokenId>(rng.below(32));
  write_token_table(ids, {.samples = 200, .length = 64, .ids = tokens});
  for (const std::string family : {"mixtral", "deepseek_v3", "qwen3_next"}) {
    const auto recipe = [&](const std::string& output) {
      return parse_recipe(
          "model: " + source_dir() + "/tests/compress/model/goldens/" + family +
              "\ncalibration: {text: " + ids.string() +
              ", samples: 200, sequence_length: 64}\nstages: [{quantize: "
              "{method: gptq, asymmetric_calibration: true, weights: {bits: 4, "
              "group_size: 8}}}]\noutput: {path: " +
              (directory.path() / output).string() + "}\n",
          "test.yaml");
    };
    run_recipe(recipe(family), {}, pool);
    const std::size_t peak =
        plan_recipe(recipe("held"), {}, pool).variants[0].peak_memory_bytes;
    const RunReport held =
        run_recipe(recipe(family + "-held"), {.memory_limit = peak - 1}, pool);
    EXPECT_NE(held.notes.at(0).find("scratch"), std::string::npos) << family;
    const auto weights = [&](const std::string& output) {
      return read_file(directory.path() / output / "model.safetensors");
    };
    EXPECT_TRUE(weights(family) == weights(family + "-held")) << family;
  }
}

// Once anything is quantized, transformers takes Llama 4's experts one by one.
TEST(FamilyNames, LetPlainExpertsOfLlama4StandApart) {
  TemporaryDirectory directory;
  ThreadPool pool(2);
  const std::string experts = "feed_forward.experts.";
  for (const bool quantized : {false, true}) {
    const std::string stage =
        quantized ? "{quantize: {method: rtn, weights: {type: fp8, group_size: "
                    "-1}, ignore: ['re:.*experts.*', lm_head]}}"
                  : "{prune: {method: magnitude, sparsity: 0.5}}";
    const fs::path out = directory.path() / (quantized ? "fp8" : "pruned");
    run_recipe(parse_recipe(
                   "model: " + source_dir() +
                       "/tests/compress/model/goldens/llama4_text\nstages: [" +
                       stage + "]\noutput: {path: " + out.string() + "}\n",
                   "test.yaml"),
               {}, pool);
    const auto artifact = open_checkpoint(out);
    std::size_t apart = 0, stacks = 0;
    for (const TensorInfo& info : artifact->tensors().tensors()) {
      if (info.name.ends_with(experts + "0.gate_proj.weight")) ++apart;
      if (info.name.ends_with(experts + "gate_up_proj")) ++stacks;
    }
    EXPECT_EQ(apart > 0, quantized);
    EXPECT_EQ(stacks > 0, !quantized);
    EXPECT_NO_THROW(logits_of(*artifact, pool));
  }
}

// What is left alone in an artifact of a golden, as its config.json says.
std::vector<std::string> ignored_of(const std::string& golden) {
  TemporaryDirectory directory;
  ThreadPool pool(2);
  const Recipe recipe = parse_recipe(
      "model: " + source_dir() + "/tests/compress/model/goldens/" + golden +
          "\nstages: [{quantize: {method: rtn, weights: {type: fp8, "
          "group_size: -1}, ignore: ['re:.*layers?.0.*(o_proj|dense)', "
          "lm_head]}}]\noutput: {path: " +
          (directory.path() / "out").string() + "}\n",
      "test.yaml");
  run_recipe(recipe, {}, pool);
  const auto config = nlohmann::json::parse(
      read_file(directory.path() / "out" / "config.json"));
  return config["quantization_config"]["ignore"];
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

// transformers knows modules by their path in the class: that of
// Phi-3.5-MoE's router, a Linear, is another than its tensor's name.
TEST(FamilyNames, LeaveModulesOutByTheNamesOfFilesAndOfTheClass) {
  const auto phimoe = ignored_of("phimoe");
  EXPECT_TRUE(holds(phimoe, "model.layers.0.block_sparse_moe.gate"));
  EXPECT_TRUE(holds(phimoe, "model.layers.0.mlp.router"));
  const auto gemma3 = ignored_of("gemma3");
  EXPECT_TRUE(holds(gemma3, "re:(.*\\.)?vision_tower\\..*"));
  for (const std::string& name : gemma3) {
    EXPECT_EQ(name.find("re:(.*\\.)?language_model"), std::string::npos);
  }
  EXPECT_FALSE(std::ranges::any_of(ignored_of("llama"), [](const auto& name) {
    return name.starts_with("re:");
  }));
}

// What pruning left stands where it stood, also in stacks and transposed.
TEST_P(FamilyRuns, PruningKeepsWeightsInTheirPlaces) {
  const fs::path artifact = run("{prune: {method: magnitude, sparsity: 0.5}}");
  const auto before = open_checkpoint(GetParam());
  const auto after = open_checkpoint(artifact);
  for (const TensorInfo& info : before->tensors().tensors()) {
    if (before->format() == "mxfp4" && info.name.ends_with("_scales")) continue;
    if (before->format() == "mxfp4" && info.name.ends_with("_blocks")) {
      const std::string stack = info.name.substr(0, info.name.size() - 7);
      EXPECT_NE(after->tensors().find(stack), nullptr) << stack;
      continue;
    }
    const TensorInfo* const now = after->tensors().find(info.name);
    ASSERT_NE(now, nullptr) << info.name;
    ASSERT_EQ(now->shape, info.shape) << info.name;
    const auto old_values = floats_of(before->tensors(), info);
    const auto new_values = floats_of(after->tensors(), *now);
    for (std::size_t i = 0; i < old_values.size(); ++i) {
      ASSERT_TRUE(new_values[i] == 0 || new_values[i] == old_values[i])
          << info.name << " at " << i;
    }
  }
}

std::vector<fs::path> goldens() {
  std::vector<fs::path> found;
  const fs::path root = fs::path(source_dir()) / "tests/compress/model/goldens";
  for (const auto& entry : fs::directory_iterator(root)) {
    found.push_back(entry.path());
  }
  std::ranges::sort(found);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Goldens, FamilyRuns, testing::ValuesIn(goldens()),
                         [](const auto& row) {
                           return row.param.filename().string();
                         });

}  // namespace
}  // namespace llmpress

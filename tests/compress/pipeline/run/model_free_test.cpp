#include "compress/pipeline/run/model_free.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/compress/pipeline/shipped_model.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

const std::string kInt4 =
    "[{quantize: {method: rtn, weights: {bits: 4, group_size: 16, symmetric: "
    "true}}}]";

NamedTensor random_tensor(const std::string& name,
                          std::vector<std::size_t> shape) {
  Rng rng(std::hash<std::string>{}(name));
  std::size_t count = 1;
  for (const std::size_t d : shape) count *= d;
  std::vector<float> values(count);
  for (float& x : values) x = static_cast<float>(rng.normal());
  return rounded_tensor(name, DType::kBF16, std::move(shape), values);
}

// A model of no family: what its names and shapes can say, once each.
std::vector<NamedTensor> invented_tensors() {
  return {
      random_tensor("tok_embed.weight", {40, 32}),
      random_tensor("logits_out.weight", {40, 32}),
      random_tensor("trunk.0.mix.weight", {40, 32}),
      random_tensor("trunk.0.mix.bias", {40}),
      random_tensor("trunk.0.mix.decay", {40}),
      random_tensor("trunk.0.post.weight", {32, 48}),
      random_tensor("trunk.0.head_norm.weight", {4, 32}),
      random_tensor("trunk.0.gate.weight", {3, 32}),
      random_tensor("trunk.0.turned.weight", {32, 24}),
      random_tensor("trunk.0.turned.bias", {24}),
      random_tensor("trunk.0.experts.up", {3, 16, 32}),
      random_tensor("final.head.weight", {8, 32}),
  };
}

class ModelFree : public testing::Test {
 protected:
  void SetUp() override {
    write("model", invented_tensors(),
          R"({"model_type": "invented", "vocab_size": 40, "z": [1, 2]})");
  }

  void write(const std::string& name, const std::vector<NamedTensor>& tensors,
             const std::string& config) {
    fs::create_directories(path(name));
    write_file_atomically(path(name) / "model.safetensors",
                          write_safetensors(tensors, {{"format", "pt"}}));
    write_file_atomically(path(name) / "config.json", config);
  }

  Recipe recipe(const std::string& stages, const std::string& more = "") {
    return parse_recipe(
        "model: " + path("model").string() + "\nstages: " + stages +
            "\noutput: {path: " + path("out").string() + "}\n" + more,
        "test.yaml");
  }
  RunReport run(const Recipe& wanted) { return run_recipe(wanted, {}, pool_); }

  std::string refusal(const Recipe& wanted) {
    std::string said;
    try {
      run(wanted);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported) << e.what();
      said = e.what();
    }
    EXPECT_FALSE(fs::exists(path("out")));
    EXPECT_THROW((void)plan_recipe(wanted, {}, pool_), Error);
    return said;
  }

  fs::path path(const std::string& name) { return directory_.path() / name; }

  TemporaryDirectory directory_;
  ThreadPool pool_{2};
};

std::vector<std::string> names_of(const VariantReport& variant) {
  std::vector<std::string> names;
  for (const LayerReport& layer : variant.layers) names.push_back(layer.name);
  return names;
}

bool says(const std::vector<std::string>& notes, const std::string& words) {
  return std::ranges::any_of(notes, [&](const std::string& note) {
    return note.find(words) != std::string::npos;
  });
}

TEST_F(ModelFree, RoundsMatricesThatNothingSpeaksAgainstAndNamesTheRest) {
  const RunReport report = run(recipe(kInt4));
  EXPECT_TRUE(says(report.notes, "model_type 'invented' is not known"));
  const VariantReport& variant = report.variants.at(0);
  EXPECT_EQ(names_of(variant),
            (std::vector<std::string>{"trunk.0.mix", "trunk.0.post"}));
  EXPECT_TRUE(says(variant.notes, "an embedding by its name: tok_embed"));
  EXPECT_TRUE(says(variant.notes, "a head by its name: final.head"));
  EXPECT_TRUE(says(variant.notes, "a router by its name: trunk.0.gate"));
  EXPECT_TRUE(says(variant.notes, "a norm by its name: trunk.0.head_norm"));
  EXPECT_TRUE(says(variant.notes, "not one number a row: trunk.0.turned"));
  EXPECT_TRUE(says(variant.notes,
                   "of three dimensions (stacked experts, "
                   "convolutions): trunk.0.experts.up"));
  // 4 bits and an f16 scale for each 16 weights, where all 2-D are Linears.
  EXPECT_DOUBLE_EQ(variant.size.linear_bits_per_weight(), 5.0);
}

TEST_F(ModelFree, KeepsEveryOtherTensorByteForByte) {
  run(recipe(kInt4));
  const auto base = open_tensors(path("model"));
  const auto artifact = open_tensors(path("out"));
  std::size_t kept = 0;
  for (const TensorInfo& info : base->tensors()) {
    if (info.name == "trunk.0.mix.weight" ||
        info.name == "trunk.0.post.weight") {
      EXPECT_EQ(artifact->find(info.name), nullptr);
      continue;
    }
    const TensorInfo* const same = artifact->find(info.name);
    ASSERT_NE(same, nullptr) << info.name;
    EXPECT_EQ(same->dtype, info.dtype);
    EXPECT_EQ(same->shape, info.shape);
    EXPECT_TRUE(
        std::ranges::equal(base->read(info).bytes, artifact->read(*same).bytes))
        << info.name;
    ++kept;
  }
  EXPECT_EQ(kept, 10u);
}

TEST_F(ModelFree, SaysInTheConfigurationWhatStaysPlain) {
  run(recipe(kInt4));
  const auto config =
      nlohmann::json::parse(read_file(path("out") / "config.json"));
  EXPECT_EQ(config["model_type"], "invented");
  EXPECT_EQ(config["z"], nlohmann::json({1, 2}));
  const auto& quantization = config["quantization_config"];
  EXPECT_EQ(quantization["config_groups"]["group_0"]["targets"],
            nlohmann::json({"Linear"}));
  EXPECT_EQ(
      quantization["ignore"],
      nlohmann::json({"final.head", "lm_head", "logits_out", "trunk.0.experts",
                      "trunk.0.gate", "trunk.0.head_norm", "trunk.0.turned"}));
}

TEST_F(ModelFree, SelectsByNameWhatItWouldLeaveAlone) {
  const RunReport report =
      run(recipe("[{quantize: {method: rtn, weights: {bits: 8}, targets: "
                 "[trunk.0.gate, logits_out, 're:.*post']}}]"));
  EXPECT_EQ(
      names_of(report.variants.at(0)),
      (std::vector<std::string>{"logits_out", "trunk.0.gate", "trunk.0.post"}));
}

TEST_F(ModelFree, PrunesByMagnitude) {
  const RunReport report =
      run(recipe("[{prune: {method: magnitude, sparsity: 0.5}}]"));
  for (const LayerReport& layer : report.variants.at(0).layers) {
    EXPECT_NEAR(layer.sparsity, 0.5, 0.01) << layer.name;
  }
}

TEST_F(ModelFree, RequantizesWhatIsPackedAndKeepsTheCodesOfTheRest) {
  run(recipe(kInt4));
  fs::rename(path("model"), path("plain"));
  fs::rename(path("out"), path("model"));
  const RunReport report = run(
      recipe("[{quantize: {method: rtn, weights: {type: fp8, group_size: -1}, "
             "targets: [trunk.0.mix]}}]"));
  EXPECT_EQ(names_of(report.variants.at(0)),
            (std::vector<std::string>{"trunk.0.mix"}));
  const auto artifact = open_checkpoint(path("out"));
  const auto before = open_checkpoint(path("model"));
  EXPECT_EQ(describe(artifact->read_linear("trunk.0.mix").weight),
            "fp8_e4m3 channel");
  const auto codes = [](const Checkpoint& checkpoint) {
    return std::get<GroupedIntWeight>(
               checkpoint.read_linear("trunk.0.post").weight)
        .codes;
  };
  EXPECT_EQ(codes(*artifact), codes(*before));
}

// DeepSeek's form: a scale a block of 16 x 16, the inputs rounded at run time.
TEST_F(ModelFree, RequantizesFp8ToTheBytesOfItsPlainNumbers) {
  std::vector<NamedTensor> tensors = invented_tensors();
  const auto mix =
      std::ranges::find(tensors, "trunk.0.mix.weight", &NamedTensor::name);
  ASSERT_NE(mix, tensors.end());
  mix->dtype = DType::kF8E4M3;
  mix->bytes.resize(40 * 32);
  for (std::size_t i = 0; i < mix->bytes.size(); ++i) {
    mix->bytes[i] = static_cast<std::byte>(i * 37 % 127 + (i % 3 ? 128 : 0));
  }
  const std::vector<float> scales{0.5f, 0.25f, 3, 1, 0.125f, 2};
  tensors.push_back(float_tensor("trunk.0.mix.weight_scale_inv", DType::kF32,
                                 {3, 2}, scales));
  const std::string config = R"({"model_type": "invented", "vocab_size": 40)";
  write("model", tensors, config + R"(, "quantization_config": {"quant_method":
      "fp8", "weight_block_size": [16, 16]}})");
  run(recipe(kInt4));
  const std::string from_codes = files_of(path("out")).at("model.safetensors");

  const MatrixF W = dequantize(
      open_checkpoint(path("model"))->read_linear("trunk.0.mix").weight);
  tensors.pop_back();
  const auto plain =
      std::ranges::find(tensors, "trunk.0.mix.weight", &NamedTensor::name);
  *plain = float_tensor("trunk.0.mix.weight", DType::kF32, {40, 32}, W.data());
  write("model", tensors, config + "}");
  run(recipe(kInt4));
  EXPECT_EQ(files_of(path("out")).at("model.safetensors"), from_codes);
}

TEST_F(ModelFree, GivesTheBytesOfAKnownRun) {
  const fs::path base = shipped("tinystories-3.7m");
  run_recipe(small_recipe(kInt4, path("known")), {}, pool_);
  fs::remove_all(path("model"));
  fs::copy(base, path("model"));
  std::string config = read_file(base / "config.json");
  const std::size_t at = config.find("\"llama\"");
  ASSERT_NE(at, std::string::npos);
  write_file_atomically(path("model") / "config.json",
                        config.replace(at, 7, "\"fable\""));
  run(recipe(kInt4));
  EXPECT_EQ(files_of(path("out")).at("model.safetensors"),
            files_of(path("known")).at("model.safetensors"));
}

TEST_F(ModelFree, WritesAndReadsShards) {
  Recipe wanted = recipe(kInt4);
  run(wanted);
  const auto whole = open_tensors(path("out"));
  wanted.output->max_shard_size = 3000;
  wanted.output->path = path("shards");
  run(wanted);
  EXPECT_TRUE(fs::exists(path("shards") / "model.safetensors.index.json"));
  const auto shards = open_tensors(path("shards"));
  ASSERT_EQ(shards->tensors().size(), whole->tensors().size());
  for (const TensorInfo& info : whole->tensors()) {
    EXPECT_TRUE(
        std::ranges::equal(whole->read(info).bytes,
                           shards->read(shards->require(info.name)).bytes));
  }
}

TEST_F(ModelFree, RefusesWhatNeedsTheArchitectureAndSaysWhatDoesNot) {
  const std::string calibration =
      "calibration: {text: " + shipped("text/calibration.txt").string() + "}\n";
  for (const char* stages :
       {"[{quantize: {method: gptq, scheme: W4A16}}]",
        "[{smooth: {}}, {quantize: {method: rtn, scheme: W8A8}}]",
        "[{rotate: {}}, {quantize: {method: rtn, scheme: W4A16}}]",
        "[{prune: {method: wanda, sparsity: 0.5}}]",
        "[{prune: {method: depth, sparsity: 0.5}}]"}) {
    const std::string said = refusal(recipe(stages, calibration));
    EXPECT_NE(said.find("test.yaml:"), std::string::npos) << said;
    EXPECT_NE(said.find("quantize by rtn"), std::string::npos) << said;
    EXPECT_NE(said.find("prune by magnitude"), std::string::npos) << said;
  }
}

TEST_F(ModelFree, RefusesToEvaluate) {
  const std::string text = shipped("text/evaluation.txt").string();
  const std::string said =
      refusal(recipe(kInt4, "evaluate: {text: " + text + "}\n"));
  EXPECT_NE(said.find("--set evaluate=none"), std::string::npos) << said;
  const Recipe without =
      parse_recipe("model: " + path("model").string() + "\nstages: " + kInt4 +
                       "\noutput: {path: " + path("out").string() +
                       "}\nevaluate: {text: " + text + "}\n",
                   "test.yaml", {.set = {"evaluate=none"}});
  EXPECT_EQ(run(without).variants.size(), 1u);
}

TEST_F(ModelFree, PlansWhatItWouldDo) {
  const RunPlan plan = plan_recipe(recipe(kInt4), {}, pool_);
  const PlannedVariant& variant = plan.variants.at(0);
  ASSERT_EQ(variant.layers.size(), 2u);
  EXPECT_EQ(variant.layers[0].name, "trunk.0.mix");
  EXPECT_EQ(variant.layers[0].bytes_after, 40u * 32 / 2 + 40 * 2 * 2);
  EXPECT_TRUE(says(variant.notes, "the architecture is unknown"));
  EXPECT_TRUE(says(variant.notes, "a router by its name"));
  const RunReport report = run(recipe(kInt4));
  EXPECT_EQ(variant.output_bytes, report.variants.at(0).size.weight_bytes);
}

TEST_F(ModelFree, RefusesAMatrixAboveTheMemoryLimit) {
  try {
    (void)run_recipe(recipe(kInt4), {.memory_limit = 1000}, pool_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kResource);
  }
}

}  // namespace
}  // namespace llmpress

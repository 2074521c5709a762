#include "formats/checkpoints/expert_stacks.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/mlx.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using json = nlohmann::json;
using Shape = std::vector<std::size_t>;

void write_model(const fs::path& folder,
                 const std::vector<NamedTensor>& tensors,
                 const std::string& config) {
  fs::create_directories(folder);
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << write_safetensors(tensors, {{"format", "mlx"}});
  std::ofstream(folder / "config.json") << config;
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Experts that differ.
LinearWeights expert(int bits, std::size_t e) {
  GroupedIntWeight w = sample_grouped(bits, 4, 64, 32, false);
  w.scales[0] = static_cast<float>(e + 1);
  w.codes[0] ^= static_cast<std::uint32_t>(e);
  return {.weight = w};
}

// mx.stack of the tensors of three experts.
std::vector<NamedTensor> stacked(const std::string& module, int bits) {
  std::vector<NamedTensor> stacks;
  for (std::size_t e = 0; e < 3; ++e) {
    const EncodedLinear one = encode_mlx(module, expert(bits, e));
    for (std::size_t t = 0; t < one.tensors.size(); ++t) {
      if (e == 0) {
        stacks.push_back(one.tensors[t]);
        stacks[t].shape.insert(stacks[t].shape.begin(), 3);
      } else {
        stacks[t].bytes.insert(stacks[t].bytes.end(),
                               one.tensors[t].bytes.begin(),
                               one.tensors[t].bytes.end());
      }
    }
  }
  return stacks;
}

// A writer of MLX's folders for a model of this type.
std::unique_ptr<ArtifactWriter> writer_for(const fs::path& folder,
                                           const std::string& model_type) {
  write_model(folder / "source", {},
              formatted("{{\"model_type\": \"{}\"}}", model_type));
  return make_artifact_writer(
      {.output = folder / "out", .format = "mlx", .source = folder / "source"});
}

constexpr const char* kQwen = R"({"model_type": "qwen3_moe", "quantization":
    {"group_size": 32, "bits": 4,
     "model.layers.0.mlp.switch_mlp.down_proj": {"group_size": 32, "bits": 8}}})";

TEST(ExpertStacks, AreReadAsTheLinearsOfEachExpert) {
  const TemporaryDirectory tmp;
  const std::string at = "model.layers.0.mlp.";
  auto tensors = stacked(at + "switch_mlp.gate_proj", 4);
  for (NamedTensor& t : stacked(at + "switch_mlp.down_proj", 8)) {
    tensors.push_back(std::move(t));
  }
  write_model(tmp.path(), tensors, kQwen);
  const auto model = open_checkpoint(tmp.path());
  for (std::size_t e = 0; e < 3; ++e) {
    const std::string name = formatted("{}experts.{}.", at, e);
    expect_same_linear(model->read_linear(name + "gate_proj"), expert(4, e),
                       name);
    expect_same_linear(model->read_linear(name + "down_proj"), expert(8, e),
                       name);
  }
  EXPECT_FALSE(model->has_linear(at + "experts.3.gate_proj"));
  EXPECT_FALSE(model->has_linear(at + "switch_mlp.gate_proj"));
}

TEST(ExpertStacks, HaveTheNumbersOfMixtralsMatrices) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(),
              stacked("model.layers.0.block_sparse_moe.switch_mlp.up_proj", 8),
              R"({"model_type": "mixtral", "quantization": {"group_size": 32,
                  "bits": 4,
                  "model.layers.0.block_sparse_moe.switch_mlp.up_proj":
                      {"group_size": 32, "bits": 8}}})");
  const auto model = open_checkpoint(tmp.path());
  expect_same_linear(
      model->read_linear("model.layers.0.block_sparse_moe.experts.1.w3"),
      expert(8, 1), "w3");
}

// Stacks whose module has the name that the experts have one by one, beside
// tensors of transformers with names that begin alike.
TEST(ExpertStacks, OfGptOssHaveBiasesAndOfLlama4LieInTheDecoder) {
  const std::pair<const char*, const char*> kModels[] = {
      {"gpt_oss", "model.layers.0.mlp.experts."},
      {"llama4", "language_model.model.layers.1.feed_forward.experts."}};
  for (const auto& [type, at] : kModels) {
    const TemporaryDirectory tmp;
    const auto writer = writer_for(tmp.path(), type);
    std::vector<LinearWeights> wanted;
    for (std::size_t e = 0; e < 3; ++e) {
      wanted.push_back(expert(4, e));
      const auto b = static_cast<float>(e);
      wanted[e].bias = {b, b + 1, 0.5f, -b};
      writer->add_linear(formatted("{}{}.down_proj", at, e), wanted[e]);
    }
    const std::string untouched = std::string(at) + "gate_up_proj_bias";
    writer->add_tensor(
        tensor_of(untouched, DType::kF32, {3, 2}, std::vector<float>(6, 1)));
    writer->finish(formatted("{{\"model_type\": \"{}\"}}", type));
    const auto stored = open_tensors(tmp.path() / "out");
    const std::string stack = std::string(at) + "down_proj";
    EXPECT_EQ(stored->require(stack + ".weight").shape, (Shape{3, 4, 8}));
    EXPECT_EQ(stored->require(stack + ".bias").shape, (Shape{3, 4}));
    EXPECT_EQ(stored->find(stack), nullptr);
    const auto model = open_checkpoint(tmp.path() / "out");
    EXPECT_NE(model->tensors().find(untouched), nullptr);
    for (std::size_t e = 0; e < 3; ++e) {
      const std::string name = formatted("{}{}.down_proj", at, e);
      expect_same_linear(model->read_linear(name), wanted[e], name);
    }
  }
}

TEST(ExpertStacks, OfModelsThatAreNotKnownAreRefused) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(), stacked("model.layers.0.mlp.switch_mlp.up_proj", 4),
              R"({"model_type": "qwen3_next", "quantization":
                  {"group_size": 32, "bits": 4}})");
  EXPECT_TRUE(
      has(error_of([&] { open_checkpoint(tmp.path()); }), "qwen3_next"));
}

TEST(ExpertStacks, ThatAreNoneAreRefused) {
  const std::string name = "model.layers.0.mlp.switch_mlp.up_proj.weight";
  for (const Shape& shape : {Shape{}, Shape{0, 4}, Shape{70000, 0}}) {
    const TemporaryDirectory tmp;
    std::size_t count = 1;
    for (const std::size_t d : shape) count *= d;
    write_model(
        tmp.path(),
        {tensor_of(name, DType::kF32, shape, std::vector<float>(count, 1))},
        kQwen);
    EXPECT_TRUE(has(error_of([&] { open_checkpoint(tmp.path()); }),
                    "no stack of experts"));
  }
  const TemporaryDirectory tmp;
  auto tensors = stacked("model.layers.0.mlp.switch_mlp.up_proj", 4);
  tensors.push_back(tensor_of("model.layers.0.mlp.experts.2.up_proj.scales",
                              DType::kF32, {1}, std::vector<float>{1}));
  write_model(tmp.path(), tensors, kQwen);
  EXPECT_TRUE(has(error_of([&] { open_checkpoint(tmp.path()); }), "stack too"));
}

std::string mixtral_name(std::size_t layer, std::size_t e) {
  return formatted("model.layers.{}.block_sparse_moe.experts.{}.w1", layer, e);
}

TEST(ExpertStacks, AreWrittenFromExpertsThatComeOneByOne) {
  const TemporaryDirectory tmp;
  const auto writer = writer_for(tmp.path(), "mixtral");
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t e = 0; e < 3; ++e) {
      writer->add_linear(mixtral_name(layer, e), expert(layer == 0 ? 4 : 8, e));
    }
    writer->add_linear(formatted("model.layers.{}.self_attn.q_proj", layer),
                       expert(4, 0));
  }
  writer->finish(R"({"model_type": "mixtral"})");
  const auto stored = open_tensors(tmp.path() / "out");
  const std::string stack =
      "model.layers.0.block_sparse_moe.switch_mlp.gate_proj";
  EXPECT_EQ(stored->require(stack + ".weight").shape, (Shape{3, 4, 8}));
  EXPECT_EQ(stored->require(stack + ".scales").shape, (Shape{3, 4, 2}));
  EXPECT_EQ(stored->tensors().size(), 4 * 3u);
  const auto model = open_checkpoint(tmp.path() / "out");
  const auto config = json::parse(model->config_json())["quantization"];
  EXPECT_EQ(config["bits"], 4);
  EXPECT_EQ(
      config["model.layers.1.block_sparse_moe.switch_mlp.gate_proj"]["bits"],
      8);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t e = 0; e < 3; ++e) {
      expect_same_linear(model->read_linear(mixtral_name(layer, e)),
                         expert(layer == 0 ? 4 : 8, e), "written");
    }
  }
}

TEST(ExpertStacks, WidenTheScalesOfExpertsThatHaveNarrowerOnes) {
  const TemporaryDirectory tmp;
  const auto writer = writer_for(tmp.path(), "mixtral");
  LinearWeights wide = expert(4, 1);
  std::get<GroupedIntWeight>(wide.weight).scale_dtype = DType::kF32;
  std::get<GroupedIntWeight>(wide.weight).scales[0] = 0x1.000002p0f;
  writer->add_linear(mixtral_name(0, 0), expert(4, 0));
  writer->add_linear(mixtral_name(0, 1), wide);
  writer->finish(R"({"model_type": "mixtral"})");
  const auto model = open_checkpoint(tmp.path() / "out");
  for (std::size_t e = 0; e < 2; ++e) {
    const MatrixF W = dequantize(model->read_linear(mixtral_name(0, e)).weight);
    const MatrixF wanted =
        dequantize(e == 0 ? expert(4, 0).weight : wide.weight);
    EXPECT_TRUE(std::ranges::equal(W.data(), wanted.data())) << e;
  }
}

TEST(ExpertStacks, RefuseExpertsThatDoNotFitTogether) {
  {
    const TemporaryDirectory tmp;
    const auto writer = writer_for(tmp.path(), "mixtral");
    writer->add_linear(mixtral_name(0, 0), expert(4, 0));
    EXPECT_TRUE(has(
        error_of([&] { writer->add_linear(mixtral_name(0, 1), expert(8, 1)); }),
        "unlike other experts"));
  }
  {
    const TemporaryDirectory tmp;
    const auto writer = writer_for(tmp.path(), "mixtral");
    writer->add_linear(mixtral_name(0, 1), expert(4, 0));
    EXPECT_TRUE(
        has(error_of([&] { writer->finish("{}"); }), "expert 0 is missing"));
  }
  const TemporaryDirectory tmp;
  const auto writer = writer_for(tmp.path(), "mixtral");
  writer->add_linear(mixtral_name(0, 0), expert(4, 0));
  writer->add_linear(mixtral_name(1, 0), expert(4, 0));
  EXPECT_TRUE(has(
      error_of([&] { writer->add_linear(mixtral_name(0, 1), expert(4, 1)); }),
      "after those of another block"));
}

TEST(ExpertStacks, AreNotMadeForModelsThatHaveNone) {
  const TemporaryDirectory tmp;
  const auto writer = writer_for(tmp.path(), "llama");
  writer->add_linear(mixtral_name(0, 0), expert(4, 0));
  writer->finish(R"({"model_type": "llama"})");
  EXPECT_NE(
      open_tensors(tmp.path() / "out")->find(mixtral_name(0, 0) + ".weight"),
      nullptr);
}

}  // namespace
}  // namespace llmpress

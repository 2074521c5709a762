#include "formats/checkpoints/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/typed_tensors.h"
#include "tests/formats/linears/sample_linears.h"
#include "tests/formats/temporary_directory.h"
#include "tests/places.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

void write_model(const fs::path& folder,
                 const std::vector<NamedTensor>& tensors,
                 const std::string& config) {
  fs::create_directories(folder);
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << write_safetensors(tensors, {{"format", "pt"}});
  std::ofstream(folder / "config.json") << config;
}

TEST(Checkpoint, ReadsTheShippedModel) {
  const auto model =
      open_checkpoint(fs::path(source_dir()) / "models/tinystories-3.7m");
  EXPECT_EQ(model->format(), "huggingface");
  EXPECT_NE(model->config_json().find("\"llama\""), std::string::npos);
  EXPECT_TRUE(model->has_linear("model.layers.0.self_attn.q_proj"));
  const auto q = model->read_linear("model.layers.0.self_attn.q_proj");
  EXPECT_EQ(describe(q.weight), "f32");
  EXPECT_EQ(rows_of(q.weight), 256u);
  EXPECT_TRUE(q.bias.empty());
  EXPECT_TRUE(q.input == ActivationQuant{});
  EXPECT_FALSE(model->has_linear("lm_head"));
  EXPECT_FALSE(model->has_linear("model.norm"));
}

TEST(Checkpoint, KeepsDenseTypesAndNarrowsOnlyF64) {
  const TemporaryDirectory tmp;
  write_model(tmp.path(),
              {tensor_of<std::uint16_t>("h.weight", DType::kBF16, {1, 2},
                                        {0x3f80, 0xc000}),
               tensor_of<float>("h.bias", DType::kF32, {1}, {0.1f}),
               tensor_of<double>("d.weight", DType::kF64, {1, 1}, {0.1}),
               tensor_of<double>("big.weight", DType::kF64, {1, 1}, {1e300})},
              "{}");
  const auto model = open_checkpoint(tmp.path());
  const auto h = model->read_linear("h");
  EXPECT_EQ(describe(h.weight), "bf16");
  EXPECT_EQ(dequantize(h.weight)(0, 1), -2.0f);
  EXPECT_EQ(h.bias, (std::vector<float>{0.1f}));
  EXPECT_EQ(describe(model->read_linear("d").weight), "f32");
  EXPECT_THROW(model->read_linear("big"), Error);
}

TEST(Checkpoint, GivesTheRowsOfALinearOneByOne) {
  const TemporaryDirectory tmp;
  std::vector<std::string> names;
  const auto writer = make_artifact_writer({.output = tmp.path() / "packed"});
  for (const auto& [what, linear] : sample_linears()) {
    names.push_back("l" + std::to_string(names.size()));
    writer->add_linear(names.back(), linear);
  }
  writer->finish("{}");
  write_model(tmp.path() / "plain",
              {tensor_of<std::uint16_t>("h.weight", DType::kBF16, {2, 2},
                                        {0x3f80, 0xc000, 0x4040, 0x7f80}),
               tensor_of<float>("h.bias", DType::kF32, {2}, {0.1f, 0.2f}),
               tensor_of<double>("d.weight", DType::kF64, {1, 1}, {0.1})},
              "{}");
  const auto expect_rows = [](const Checkpoint& model,
                              const std::string& name) {
    const LinearWeights whole = model.read_linear(name);
    const LinearRows rows = model.read_linear_rows(name);
    const MatrixF W = dequantize(whole.weight);
    ASSERT_EQ(rows.W.rows, W.rows()) << name;
    ASSERT_EQ(rows.W.cols, W.cols()) << name;
    EXPECT_EQ(rows.rest.bias, whole.bias);
    EXPECT_EQ(rows.rest.input, whole.input);
    EXPECT_EQ(rows.rest.input_hadamard, whole.input_hadamard);
    for (std::size_t o = 0; o < W.rows(); ++o) {
      MatrixF row(1, W.cols());
      rows.W.read(o, row.view());
      EXPECT_TRUE(std::ranges::equal(row.data(), W.row(o))) << name << o;
    }
  };
  const auto packed = open_checkpoint(tmp.path() / "packed");
  for (const std::string& name : names) expect_rows(*packed, name);

  // A row that is not finite is refused when it is read, by its place.
  const auto plain = open_checkpoint(tmp.path() / "plain");
  expect_rows(*plain, "d");
  const LinearRows h = plain->read_linear_rows("h");
  EXPECT_EQ(h.rest.bias, (std::vector<float>{0.1f, 0.2f}));
  MatrixF row(1, 2);
  h.W.read(0, row.view());
  EXPECT_EQ(row(0, 1), -2.0f);
  try {
    h.W.read(1, row.view());
    FAIL() << "infinity was read";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("'h.weight': value [1, 1] is inf, not finite"),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(plain->read_linear_rows("nothing"), Error);
}

TEST(Checkpoint,
     BitsandbytesModelsComeBackWithTheThresholdOfTheirConfiguration) {
  const TemporaryDirectory tmp;
  LinearWeights int8{.weight = sample_int8(4, 8, false, false)};
  auto& w = std::get<Int8Weight>(int8.weight);
  w.scale_dtype = DType::kF32;
  w.scales = {1.0f / 127, 3.3f / 127, 0.01f / 127, 7.0f / 127};
  int8.input = {.kind = ActivationQuant::Kind::kInt, .outlier_threshold = 6};
  const LinearWeights dense{
      .weight = make_dense(sample_matrix(3, 8).view(), DType::kF16)};
  auto writer = make_artifact_writer(
      {.output = tmp.path() / "m", .format = "bitsandbytes"});
  writer->add_linear("model.layers.0.mlp.up_proj", int8);
  writer->add_linear("model.layers.0.mlp.gate_proj", dense);
  LinearWeights other = int8;
  other.input.outlier_threshold = 5;
  EXPECT_THROW(writer->add_linear("model.layers.0.mlp.down_proj", other),
               Error);
  EXPECT_THROW(writer->add_linear(
                   "model.layers.0.mlp.down_proj",
                   {.weight = sample_table4(Table4Kind::kNf4, 4, 32, false)}),
               Error);
  writer->finish("{\"model_type\":\"llama\"}");
  const auto model = open_checkpoint(tmp.path() / "m");
  EXPECT_EQ(model->format(), "bitsandbytes");
  expect_same_linear(model->read_linear("model.layers.0.mlp.up_proj"), int8,
                     "int8");
  expect_same_linear(model->read_linear("model.layers.0.mlp.gate_proj"), dense,
                     "dense");
  EXPECT_NE(model->config_json().find("\"llm_int8_threshold\": 6.0"),
            std::string::npos);
  EXPECT_NE(model->config_json().find("\"load_in_8bit\": true"),
            std::string::npos);
  EXPECT_NE(model->config_json().find("\"lm_head\""), std::string::npos);
}

TEST(Checkpoint, Nf4ModelsSayTheirTypeInTheConfiguration) {
  const TemporaryDirectory tmp;
  const LinearWeights nf4{.weight =
                              sample_table4(Table4Kind::kNf4, 40, 500, true)};
  write_model(tmp.path() / "source", {}, "{\"torch_dtype\":\"bfloat16\"}");
  auto writer = make_artifact_writer({.output = tmp.path() / "m",
                                      .format = "bitsandbytes",
                                      .source = tmp.path() / "source"});
  writer->add_linear("l", nf4);
  writer->finish("{}");
  const auto model = open_checkpoint(tmp.path() / "m");
  expect_same_linear(model->read_linear("l"), nf4, "nf4");
  for (const char* part :
       {"\"bnb_4bit_quant_type\": \"nf4\"",
        "\"bnb_4bit_use_double_quant\": true",
        "\"bnb_4bit_compute_dtype\": \"bfloat16\"", "\"load_in_4bit\": true"}) {
    EXPECT_NE(model->config_json().find(part), std::string::npos) << part;
  }
}

TEST(Checkpoint, RefusesAnEightBitFloatWithoutScales) {
  const TemporaryDirectory tmp;
  write_model(
      tmp.path(),
      {tensor_of<std::uint8_t>("l.weight", DType::kF8E4M3, {1, 1}, {0x38})},
      R"({"quantization_config":{"quant_method":"fp8"}})");
  const auto model = open_checkpoint(tmp.path());
  EXPECT_FALSE(model->has_linear("l"));
  try {
    model->read_linear("l");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("F8_E4M3"), std::string::npos);
  }
}

TEST(Checkpoint, SaysWhatIsNotAModel) {
  const TemporaryDirectory tmp;
  EXPECT_THROW(open_checkpoint(tmp.path() / "absent"), Error);
  EXPECT_THROW(open_checkpoint(tmp.path()), Error);
  write_model(tmp.path() / "m", {}, "{\"a\":");
  EXPECT_THROW(open_checkpoint(tmp.path() / "m"), Error);
  EXPECT_THROW(open_checkpoint(tmp.path() / "m" / "config.json"), Error);
}

}  // namespace
}  // namespace llmpress

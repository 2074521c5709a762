// A small Llama written as GGUF and read back, tensor by tensor.
#include "formats/gguf/gguf_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/ggml/ggml_block.h"
#include "compress/core/rng.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/checkpoint.h"
#include "formats/gguf/gguf_checkpoint.h"
#include "formats/gguf/gguf_linears.h"
#include "formats/gguf/gguf_names.h"
#include "tests/formats/temporary_directory.h"
#include "tests/formats/tokenizers/tiny_tokenizer.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kHidden = 64, kFfn = 96, kVocabulary = 258;

Json llama_config() {
  return {{"model_type", "llama"},      {"vocab_size", kVocabulary},
          {"hidden_size", kHidden},     {"intermediate_size", kFfn},
          {"num_hidden_layers", 1},     {"num_attention_heads", 4},
          {"num_key_value_heads", 2},   {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},       {"rope_theta", 50000.0},
          {"tie_word_embeddings", true}};
}

NamedTensor random_tensor(const std::string& name,
                          std::vector<std::size_t> shape, Rng& rng,
                          DType dtype = DType::kF32) {
  NamedTensor tensor{.name = name, .dtype = dtype, .shape = std::move(shape)};
  std::size_t count = 1;
  for (const std::size_t d : tensor.shape) count *= d;
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(rng.uniform()) - 0.5f;
  tensor.bytes.resize(bytes_of(dtype, count));
  encode_floats(dtype, values, tensor.bytes);
  return tensor;
}

std::vector<NamedTensor> llama_tensors(DType dtype = DType::kF32) {
  Rng rng(3);
  const std::string block = "model.layers.0.";
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name,
                       std::vector<std::size_t> shape) {
    tensors.push_back(random_tensor(name, std::move(shape), rng, dtype));
  };
  add("model.embed_tokens.weight", {kVocabulary, kHidden});
  add("model.norm.weight", {kHidden});
  add(block + "input_layernorm.weight", {kHidden});
  add(block + "post_attention_layernorm.weight", {kHidden});
  add(block + "self_attn.q_proj.weight", {kHidden, kHidden});
  add(block + "self_attn.k_proj.weight", {kHidden / 2, kHidden});
  add(block + "self_attn.v_proj.weight", {kHidden / 2, kHidden});
  add(block + "self_attn.o_proj.weight", {kHidden, kHidden});
  add(block + "mlp.gate_proj.weight", {kFfn, kHidden});
  add(block + "mlp.up_proj.weight", {kFfn, kHidden});
  add(block + "mlp.down_proj.weight", {kHidden, kFfn});
  return tensors;
}

void write(const std::filesystem::path& path,
           const std::vector<NamedTensor>& tensors, const Json& config,
           bool tokenizer = false) {
  const auto writer = make_artifact_writer({.output = path, .format = "gguf"});
  for (const NamedTensor& tensor : tensors) writer->add_tensor(tensor);
  if (tokenizer) {
    writer->add_file("tokenizer.json",
                     testing::byte_level_tokenizer({{"t", "h"}}).dump());
  }
  writer->finish(config.dump());
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(GgufModel, GivesBackTheTensorsOfTheFolder) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  const auto tensors = llama_tensors();
  write(path, tensors, llama_config());
  const auto model = open_checkpoint(path);
  EXPECT_EQ(model->format(), "gguf");
  ASSERT_EQ(model->tensors().tensors().size(), tensors.size());
  for (const NamedTensor& t : tensors) {
    const TensorInfo& info = model->tensors().require(t.name);
    EXPECT_EQ(info.dtype, t.dtype) << t.name;
    EXPECT_EQ(info.shape, t.shape) << t.name;
    const TensorBytes bytes = model->tensors().read(info);
    EXPECT_TRUE(std::ranges::equal(bytes.bytes, t.bytes)) << t.name;
  }
  const Json config = Json::parse(model->config_json());
  const Json wanted = llama_config();
  for (const auto& [key, value] : wanted.items()) {
    if (value.is_number_float()) {
      EXPECT_FLOAT_EQ(config[key].get<float>(), value.get<float>()) << key;
    } else {
      EXPECT_EQ(config[key], value) << key;
    }
  }
}

// Rows j and j + 8 of a head of 16 turn together; in GGUF they are neighbours.
TEST(GgufModel, StoresRowsThatTurnTogetherSideBySide) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  const auto tensors = llama_tensors();
  write(path, tensors, llama_config());
  const GgufFile file = GgufFile::open(path);
  const TensorBytes stored = file.read(*file.find("blk.0.attn_q.weight"));
  const std::size_t row = kHidden * sizeof(float);
  const auto is_row = [&](std::size_t gguf, std::size_t ours) {
    return std::memcmp(stored.bytes.data() + gguf * row,
                       tensors[4].bytes.data() + ours * row, row) == 0;
  };
  EXPECT_TRUE(is_row(0, 0));
  EXPECT_TRUE(is_row(1, 8));
  EXPECT_TRUE(is_row(2, 1));
  EXPECT_TRUE(is_row(16 + 1, 16 + 8));  // of the next head
  EXPECT_EQ(file.find("blk.0.attn_norm.weight")->type, GgmlType::kF32);
}

TEST(GgufModel, WritesVectorsAsF32AndMatricesAsTheyAre) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  write(path, llama_tensors(DType::kBF16), llama_config());
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.find("output_norm.weight")->type, GgmlType::kF32);
  EXPECT_EQ(file.find("blk.0.ffn_up.weight")->type, GgmlType::kBF16);
  EXPECT_EQ(file.metadata().size("general.file_type"), 32u);
}

TEST(GgufModel, KeepsTheCodesOfBlocksInTurnedRows) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  GgmlWeight w{.out = kHidden, .in = kHidden, .type = GgmlType::kQ8_0};
  w.blocks.resize(w.out * w.row_bytes());
  Rng rng(8);
  for (std::size_t b = 0; b < w.out * 2; ++b) {
    GgmlBlock block{.d = 0.5f};
    for (auto& c : block.codes) c = static_cast<std::uint8_t>(rng.below(256));
    pack_ggml_block(w.type, block, std::span(w.blocks).subspan(b * 34, 34));
  }
  const std::string name = "model.layers.0.self_attn.q_proj";
  {
    const auto writer =
        make_artifact_writer({.output = path, .format = "gguf"});
    for (const NamedTensor& t : llama_tensors()) {
      if (t.name != name + ".weight") writer->add_tensor(t);
    }
    writer->add_linear(name, {.weight = w});
    writer->finish(llama_config().dump());
  }
  const auto model = open_checkpoint(path);
  EXPECT_EQ(model->plain_weight(name), nullptr);
  ASSERT_TRUE(model->has_linear(name));
  const LinearWeights read = model->read_linear(name);
  ASSERT_TRUE(std::holds_alternative<GgmlWeight>(read.weight));
  EXPECT_EQ(std::get<GgmlWeight>(read.weight).blocks, w.blocks);
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.find("blk.0.attn_q.weight")->type, GgmlType::kQ8_0);
  EXPECT_EQ(file.metadata().size("general.quantization_version"), 2u);
}

TEST(GgufModel, AddsTheOneOfGemmasNorms) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  Json config = llama_config();
  config["model_type"] = "gemma";
  config["head_dim"] = 16;
  const auto tensors = llama_tensors();
  write(path, tensors, config);
  const GgufFile file = GgufFile::open(path);
  float stored = 0, ours = 0;
  std::memcpy(&stored,
              file.read(*file.find("blk.0.attn_norm.weight")).bytes.data(), 4);
  std::memcpy(&ours, tensors[2].bytes.data(), 4);
  EXPECT_EQ(stored, ours + 1);
  const auto model = open_checkpoint(path);
  const auto read = read_vector(model->tensors(), tensors[2].name, kHidden);
  EXPECT_NEAR(read[0], ours, 1.2e-7f);
}

TEST(GgufModel, RefusesWhatTheArchitectureCannotSay) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  const auto refusal = [&](const Json& change,
                           std::vector<NamedTensor> tensors) {
    Json config = llama_config();
    if (!change.is_null()) config.update(change);
    return message_of([&] { write(path, tensors, config); });
  };
  const auto tensors = llama_tensors();
  EXPECT_NE(refusal({{"model_type", "rwkv"}}, tensors).find("rwkv"),
            std::string::npos);
  EXPECT_NE(refusal({{"sliding_window", 64}}, tensors).find("sliding_window"),
            std::string::npos);
  EXPECT_NE(refusal({{"rope_scaling", {{"rope_type", "dynamic"}}}}, tensors)
                .find("rope_type"),
            std::string::npos);
  EXPECT_NE(refusal({{"model_type", "gemma2"},
                     {"attn_logit_softcapping", nullptr},
                     {"hidden_activation", "gelu_pytorch_tanh"}},
                    tensors)
                .find("'attn_logit_softcapping' is null, wanted a number"),
            std::string::npos);
  auto more = tensors;
  Rng rng(1);
  more.push_back(random_tensor("model.layers.0.extra.weight", {4, 4}, rng));
  EXPECT_NE(refusal(Json::object(), more).find("model.layers.0.extra.weight"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(GgufModel, ReplacesOnlyWhatWasWrittenHere) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  write(path, llama_tensors(), llama_config());
  EXPECT_NO_THROW(write(path, llama_tensors(), llama_config()));
  write_file_atomically(path, "GGUF of someone else");
  EXPECT_THROW(write(path, llama_tensors(), llama_config()), Error);
}

TEST(GgufModel, IsFoundInAFolderThatHoldsOneAlone) {
  const TemporaryDirectory folder;
  write(folder.path() / "m.gguf", llama_tensors(), llama_config());
  EXPECT_EQ(open_checkpoint(folder.path())->format(), "gguf");
  write(folder.path() / "n.gguf", llama_tensors(), llama_config());
  EXPECT_NE(
      message_of([&] { (void)open_checkpoint(folder.path()); }).find("m.gguf"),
      std::string::npos);
}

TEST(GgufModel, RefusesUnknownArchitecturesAndTensorsByName) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "m.gguf";
  const auto refusal = [&](const char* architecture, const char* tensor) {
    GgufMetadata m("m");
    m.set("general.architecture", std::string(architecture));
    m.set("llama.context_length", std::uint32_t{64});
    for (const char* key : {"embedding_length", "block_count",
                            "feed_forward_length", "attention.head_count"}) {
      m.set("llama." + std::string(key), std::uint32_t{1});
    }
    m.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    std::vector<GgufTensor> tensors{
        {.name = "token_embd.weight", .shape = {4, 2}},
        {.name = tensor, .shape = {4}}};
    std::string file = gguf_header(m, tensors);
    file.resize(file.size() + 64);
    write_file_atomically(path, file);
    return message_of([&] { (void)open_checkpoint(path); });
  };
  EXPECT_NE(refusal("bert", "output_norm.weight").find("'bert' is not read"),
            std::string::npos);
  EXPECT_NE(refusal("llama", "blk.0.odd.weight").find("blk.0.odd.weight"),
            std::string::npos);
  EXPECT_EQ(refusal("llama", "output_norm.weight"), "");
  EXPECT_NE(refusal("llama", "blk.07.attn_norm.weight").find("blk.07"),
            std::string::npos);
}

TEST(GgufNames, GoBothWaysInEveryArchitecture) {
  for (const GgufArchitecture& row : gguf_architectures()) {
    for (const GgufTensorName& name : row.tensors) {
      const std::string suffix = name.whole ? "" : ".weight";
      std::string ours = with_number(name.ours, 12) + suffix;
      if (const auto at = ours.find("{e}"); at != std::string::npos) {
        ours.replace(at, 3, "7");
      }
      const auto places = gguf_places(row, ours);
      ASSERT_FALSE(places.empty()) << ours;
      const std::string gguf = with_number(name.gguf, 12) + suffix;
      const auto back = our_name(row, gguf);
      ASSERT_TRUE(back) << gguf;
      const auto place = std::ranges::find(places, gguf, &GgufPlace::name);
      if (place == places.end()) {  // read in place of several parts
        EXPECT_GE(places.size(), 2u) << gguf;
        continue;
      }
      EXPECT_EQ(place->expert, place->stacked ? 7u : 0u);
    }
  }
}

TEST(GgufLinears, KeepsTheCodesOfIntegersInGroupsOf32) {
  GroupedIntWeight w{.out = 1,
                     .in = 32,
                     .bits = 4,
                     .group_size = 32,
                     .symmetric = true,
                     .scale_dtype = DType::kF16,
                     .scales = {0.25f}};
  Matrix<std::uint8_t> codes(1, 32);
  for (std::size_t i = 0; i < 32; ++i) {
    codes(0, i) = static_cast<std::uint8_t>(i % 16);
  }
  w.codes = pack_rows(codes.view(), 4);
  const auto values = [](const EncodedLinear& e) {
    std::vector<float> out(32);
    decode_ggml(*e.blocks, e.tensors[0].bytes, out);
    return out;
  };
  const EncodedLinear q4_0 = encode_gguf("l", {.weight = w});
  EXPECT_EQ(q4_0.blocks, GgmlType::kQ4_0);
  EXPECT_EQ(values(q4_0)[3], 0.25f * (3 - 8));
  w.symmetric = false;
  w.zeros = {5};
  const EncodedLinear q4_1 = encode_gguf("l", {.weight = w});
  EXPECT_EQ(q4_1.blocks, GgmlType::kQ4_1);
  EXPECT_EQ(values(q4_1)[3], 0.25f * (3 - 5));
  // 5 * scale needs more bits than f16 has.
  w.scales = {1.0f + 0x1p-10f};
  EXPECT_NE(
      message_of([&] { (void)encode_gguf("l", {.weight = w}); }).find("f16"),
      std::string::npos);
}

TEST(GgufLinears, RefusesWhatNoBlockHolds) {
  const auto refused = [](const LinearWeights& linear) {
    return message_of([&] { (void)encode_gguf("l.q", linear); }).find("l.q") !=
           std::string::npos;
  };
  GroupedIntWeight w{.out = 1,
                     .in = 32,
                     .bits = 3,
                     .group_size = 32,
                     .symmetric = true,
                     .scales = {1}};
  w.codes = pack_rows(Matrix<std::uint8_t>(1, 32).view(), 3);
  EXPECT_TRUE(refused({.weight = w}));
  const DenseWeight dense = make_dense(MatrixF(2, 2).view(), DType::kF32);
  EXPECT_FALSE(refused({.weight = dense}));
  EXPECT_TRUE(refused({.weight = dense, .input_hadamard = 2}));
  EXPECT_TRUE(refused(
      {.weight = dense, .input = {.kind = ActivationQuant::Kind::kInt}}));
}

}  // namespace
}  // namespace llmpress

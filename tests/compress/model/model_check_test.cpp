#include "compress/model/model_check.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "compress/core/error.h"
#include "compress/model/decoder.h"
#include "compress/model/tensor_places.h"
#include "tests/compress/model/tiny_model.h"
#include "tests/places.h"

namespace llmpress {
namespace {

Architecture arch_of(const TinyShape& shape) {
  return parse_architecture(config_json(shape), "tiny");
}

std::string complaint(const TinyTensors& tensors, const TinyShape& shape) {
  const MemoryCheckpoint checkpoint(tensors, config_json(shape));
  try {
    check_model(checkpoint, arch_of(shape));
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    return error.what();
  }
}

TEST(ModelCheck, AcceptsWholeModels) {
  for (const TinyShape& shape :
       {TinyShape{}, TinyShape{.tied = true},
        TinyShape{.model_type = "qwen3", .head_norms = true}}) {
    EXPECT_EQ(complaint(tiny_tensors(shape, 1), shape), "");
  }
}

TEST(ModelCheck, ListsEverythingThatIsMissingOrMisshapen) {
  const TinyShape shape{.qkv_bias = true,
                        .o_bias = true,
                        .more_json = R"(, "attention_bias": true)"};
  TinyTensors tensors = tiny_tensors(shape, 1);
  tensors.erase("model.layers.1.mlp.down_proj.weight");
  tensors.erase("model.layers.0.self_attn.k_proj.bias");
  tensors["model.norm.weight"] = MatrixF(1, 25);
  tensors["model.embed_tokens.weight"] = MatrixF(30, 24);
  const std::string text = complaint(tensors, shape);
  for (const std::string part :
       {"'model.layers.1.mlp.down_proj.weight' is missing",
        "'model.layers.0.self_attn.k_proj.bias' is missing",
        "'model.norm.weight' is [25], wanted [24]",
        "'model.embed_tokens' is [30, 24], wanted [31, 24]"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(ModelCheck, ListsAFewOfManyProblems) {
  const TinyShape shape;
  const std::string text = complaint({}, shape);
  EXPECT_NE(text.find("; and 13 more"), std::string::npos)
      << text;  // 21 in all
}

TEST(ModelCheck, WantsAHeadWhereTheConfigurationDoesNotTieIt) {
  const TinyShape shape;
  TinyTensors tensors = tiny_tensors(shape, 1);
  tensors.erase("lm_head.weight");
  EXPECT_NE(complaint(tensors, shape).find("tie_word_embeddings"),
            std::string::npos);
  const MemoryCheckpoint checkpoint(tensors, config_json(shape));
  const Architecture arch = arch_of(shape);
  EXPECT_THROW(ModelEnds(checkpoint, arch, Isa::kScalar), Error);
}

TEST(ModelCheck, LooksIntoPackedWeights) {
  const TinyShape shape;
  MemoryCheckpoint checkpoint(tiny_tensors(shape, 1), config_json(shape));
  TinyTensors without = tiny_tensors(shape, 1);
  without.erase("lm_head.weight");
  MemoryCheckpoint packed(without, config_json(shape));
  packed.packed["lm_head"].weight =
      make_dense(MatrixF(31, 24).view(), DType::kF16);
  EXPECT_NO_THROW(check_model(packed, arch_of(shape)));
  packed.packed["lm_head"].weight =
      make_dense(MatrixF(24, 31).view(), DType::kF16);
  EXPECT_THROW(check_model(packed, arch_of(shape)), Error);
}

class TokenizerOfSize : public Tokenizer {
 public:
  explicit TokenizerOfSize(std::size_t size) : size_(size) {}
  std::vector<TokenId> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const TokenId>) const override { return ""; }
  std::size_t vocabulary_size() const override { return size_; }

 private:
  std::size_t size_;
};

TEST(ModelCheck, RefusesATokenizerWithMoreIdsThanTheEmbedding) {
  const Architecture arch = arch_of({});
  EXPECT_NO_THROW(check_tokenizer(TokenizerOfSize(31), arch, "t"));
  EXPECT_NO_THROW(check_tokenizer(TokenizerOfSize(5), arch, "t"));
  try {
    check_tokenizer(TokenizerOfSize(32), arch, "tokenizer.json");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "tokenizer.json: has token ids up to 31, but the model's "
              "embedding has 31 rows");
  }
}

TEST(ModelCheck, CountsWeightsAndBytesOnce) {
  const TinyShape shape{.qkv_bias = true,
                        .o_bias = true,
                        .tied = true,
                        .more_json = R"(, "attention_bias": true)"};
  TinyTensors tensors = tiny_tensors(shape, 1);
  std::size_t elements = 0;
  for (const auto& [name, values] : tensors) elements += values.size();
  const ModelSize size = measure_model(
      MemoryCheckpoint(tensors, config_json(shape)), arch_of(shape));
  EXPECT_EQ(size.weights, elements);
  EXPECT_EQ(size.weight_bytes, 4 * elements);
  EXPECT_EQ(size.bits_per_weight(), 32);
  // q 24x24, k 12x24, v 12x24, o 24x24, gate, up, down 40x24, two blocks.
  EXPECT_EQ(size.linear_weights,
            2u * (4 * 12 * 24 + 2 * 12 * 24 + 3 * 40 * 24));
  EXPECT_EQ(size.linear_bits_per_weight(), 32);

  // A head beside a tied embedding and what describes other tensors is not
  // counted.
  tensors["lm_head.weight"] = MatrixF(31, 24);
  tensors["model.layers.0.mlp.up_proj.weight_shape"] = MatrixF(1, 2);
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = MatrixF(1, 3);
  const ModelSize same = measure_model(
      MemoryCheckpoint(tensors, config_json(shape)), arch_of(shape));
  EXPECT_EQ(same.weight_bytes, size.weight_bytes);
}

// Embeddings per layer, positions, biases of norms: whatever a family has.
TEST(ModelCheck, CountsEveryTensorOfAFamily) {
  for (const char* name : {"gemma4_text", "opt", "gpt2", "gpt_oss", "rwkv"}) {
    const auto golden = open_checkpoint(std::filesystem::path(source_dir()) /
                                        "tests/compress/model/goldens" / name);
    const ModelSize size = measure_model(*golden, read_architecture(*golden));
    std::size_t bytes = 0, elements = 0;
    for (const TensorInfo& info : golden->tensors().tensors()) {
      bytes += info.bytes;
      std::size_t count = 1;
      for (const std::size_t d : info.shape) count *= d;
      elements += count;
    }
    EXPECT_EQ(size.weight_bytes, bytes) << name;
    EXPECT_EQ(size.weights, elements) << name;
    EXPECT_LT(size.linear_weights, size.weights) << name;
  }
}

TEST(ModelCheck, RefusesABiasOfAHeadThatHasNone) {
  const TinyShape shape;
  TinyTensors tensors = tiny_tensors(shape, 1);
  tensors["lm_head.bias"] = MatrixF(1, 31);
  EXPECT_NE(complaint(tensors, shape).find("'lm_head.bias' is stored"),
            std::string::npos);
}

TEST(ModelCheck, MeasuresPackedLinearsByWhatIsStored) {
  const TinyShape shape;
  MemoryCheckpoint checkpoint(tiny_tensors(shape, 1), config_json(shape));
  const ModelSize before = measure_model(checkpoint, arch_of(shape));
  TinyTensors without = tiny_tensors(shape, 1);
  without.erase("model.layers.1.mlp.up_proj.weight");
  MemoryCheckpoint packed(without, config_json(shape));
  packed.packed["model.layers.1.mlp.up_proj"].weight =
      make_dense(MatrixF(40, 24).view(), DType::kBF16);
  const ModelSize after = measure_model(packed, arch_of(shape));
  EXPECT_EQ(after.linear_weights, before.linear_weights);
  EXPECT_EQ(after.linear_bytes, before.linear_bytes - 2 * 40 * 24);
}

}  // namespace
}  // namespace llmpress

#include "formats/model_config.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

TEST(ModelConfig, SaysWhatIsWrittenAndNothingElse) {
  const ModelConfig config = parse_model_config(
      R"({"model_type": "llama", "hidden_size": 64, "rms_norm_eps": 1e-5,
          "rope_theta": 10000, "tie_word_embeddings": true, "head_dim": null,
          "sliding_window": null, "max_position_embeddings": 2048.0,
          "eos_token_id": [1, 2], "bos_token_id": 0, "unknown": {"a": [1]}})",
      "c");
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.hidden_size, 64u);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.tie_word_embeddings, true);
  EXPECT_EQ(config.max_position_embeddings, 2048u);
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::size_t>{1, 2}));
  EXPECT_EQ(config.bos_token_ids, (std::vector<std::size_t>{0}));
  EXPECT_FALSE(config.head_dim.has_value());
  EXPECT_FALSE(config.vocab_size.has_value());
  EXPECT_FALSE(config.rope_scaling.has_value());
  EXPECT_TRUE(config.sliding_window_written);
  EXPECT_FALSE(config.sliding_window.has_value());
}

TEST(ModelConfig, PrefersTheNewNameOfTheRopeTypeAndObject) {
  const ModelConfig config = parse_model_config(
      R"({"rope_scaling": {"type": "linear", "factor": 2},
          "rope_parameters": {"type": "linear", "rope_type": "yarn",
                              "factor": 4, "truncate": false}})",
      "c");
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->type, "yarn");
  EXPECT_EQ(config.rope_scaling->factor, 4);
  EXPECT_EQ(config.rope_scaling->truncate, false);
}

struct Broken {
  std::string json;
  ErrorCode code = ErrorCode::kInvalidInput;
  std::string part{};
};

TEST(ModelConfig, NamesTheKeyOfAValueThatCannotBe) {
  const std::vector<Broken> table = {
      {"", ErrorCode::kCorruptFile, "c"},
      {"[1]", ErrorCode::kCorruptFile, "c"},
      {R"({"hidden_size": 1, "hidden_size": 2})", ErrorCode::kCorruptFile, "c"},
      {R"({"model_type": 3})", ErrorCode::kInvalidInput, "'model_type' is 3"},
      {R"({"hidden_size": -1})", ErrorCode::kInvalidInput,
       "'hidden_size' is -1"},
      {R"({"hidden_size": 4294967296})", ErrorCode::kInvalidInput, "2^31"},
      {R"({"hidden_size": "64"})", ErrorCode::kInvalidInput, "'hidden_size'"},
      {R"({"rope_theta": true})", ErrorCode::kInvalidInput, "'rope_theta'"},
      {R"({"eos_token_id": [1, "2"]})", ErrorCode::kInvalidInput,
       "'eos_token_id' is \"2\""},
      {R"({"layer_types": [1]})", ErrorCode::kInvalidInput, "'layer_types'"},
      {R"({"attention_bias": 1})", ErrorCode::kInvalidInput, "true or false"},
      {R"({"rope_scaling": []})", ErrorCode::kInvalidInput, "not an object"},
      {R"({"rope_scaling": {"factor": "8"}})", ErrorCode::kInvalidInput,
       "'rope_scaling': 'factor'"},
      {R"({"rope_parameters": {"full_attention": {}}})",
       ErrorCode::kUnsupported, "layer type"},
  };
  for (const Broken& broken : table) {
    try {
      parse_model_config(broken.json, "c");
      ADD_FAILURE() << "accepted " << broken.json;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), broken.code) << error.what();
      EXPECT_NE(std::string(error.what()).find(broken.part), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace llmpress

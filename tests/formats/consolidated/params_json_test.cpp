#include "formats/consolidated/params_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "compress/core/error.h"

namespace llmpress {
namespace {

using Json = nlohmann::json;

const Json kMeta = {{"dim", 64},         {"n_layers", 2},
                    {"n_heads", 8},      {"n_kv_heads", 4},
                    {"vocab_size", -1},  {"multiple_of", 32},
                    {"norm_eps", 1e-06}, {"max_seq_len", 128}};
const Json kMistral = {
    {"dim", 64},        {"n_layers", 2},          {"n_heads", 8},
    {"n_kv_heads", 4},  {"hidden_dim", 96},       {"head_dim", 16},
    {"norm_eps", 1e-5}, {"sliding_window", 4096}, {"vocab_size", 300}};

const ConsolidatedTensors kTensors{.rows = 300, .columns = 64};

Json config_of(const Json& params, const ConsolidatedTensors& tensors) {
  return Json::parse(
      read_params_json(params.dump(), tensors, "params.json").config_json);
}
Json config_of(Json params, const Json& more) {
  params.update(more);
  return config_of(params, kTensors);
}

std::string message_of(const Json& params, const Json& more) {
  try {
    (void)config_of(params, more);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << (text)

// The releases' own numbers: params.json and the intermediate_size that their
// config.json has.
TEST(ParamsJson, ComputesTheWidthsOfMetasReleases) {
  EXPECT_EQ(llama_ffn(4096, 1, 256), 11008u);     // Llama 7B
  EXPECT_EQ(llama_ffn(5120, 1, 256), 13824u);     // 13B
  EXPECT_EQ(llama_ffn(8192, 1.3, 4096), 28672u);  // Llama 2 70B
  EXPECT_EQ(llama_ffn(4096, 1.3, 1024), 14336u);  // Llama 3 8B
  EXPECT_EQ(llama_ffn(2048, 1.5, 256), 8192u);    // Llama 3.2 1B
  EXPECT_EQ(llama_ffn(3072, 1.0, 256), 8192u);    // 3B
}

TEST(ParamsJson, DescribesALlama) {
  const Json config = config_of(kMeta, Json::object());
  EXPECT_EQ(config["model_type"], "llama");
  EXPECT_EQ(config["hidden_size"], 64);
  EXPECT_EQ(config["intermediate_size"], 192);  // 170 up to 32s
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["num_attention_heads"], 8);
  EXPECT_EQ(config["num_key_value_heads"], 4);
  EXPECT_EQ(config["head_dim"], 8);
  EXPECT_EQ(config["vocab_size"], 300);
  EXPECT_EQ(config["rms_norm_eps"], 1e-6);
  EXPECT_EQ(config["rope_theta"], 1e4);
  EXPECT_EQ(config["max_position_embeddings"], 128);
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  EXPECT_EQ(config["tie_word_embeddings"], false);
  EXPECT_FALSE(config.contains("rope_scaling"));
}

TEST(ParamsJson, ScalesTheRotaryEmbeddingOfLlama31) {
  Json params = kMeta;
  params.erase("max_seq_len");
  const Json config =
      config_of(params, {{"use_scaled_rope", true}, {"rope_theta", 500000.0}});
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "llama3");
  EXPECT_EQ(config["rope_scaling"]["factor"], 8.0);
  EXPECT_EQ(config["max_position_embeddings"], 131072);
  EXPECT_EQ(
      config_of(params, {{"rope_theta", 500000.0}})["max_position_embeddings"],
      8192);
  params.update({{"dim", 2048}, {"n_layers", 16}, {"use_scaled_rope", true}});
  EXPECT_EQ(config_of(params, kTensors)["rope_scaling"]["factor"], 32.0);
}

TEST(ParamsJson, DescribesAMistralAndAMixtral) {
  const Json window = config_of(kMistral, Json::object());
  EXPECT_EQ(window["model_type"], "mistral");
  EXPECT_EQ(window["sliding_window"], 4096);
  EXPECT_EQ(window["rope_theta"], 1e4);
  EXPECT_EQ(window["intermediate_size"], 96);
  EXPECT_EQ(window["head_dim"], 16);
  const Json whole = config_of(kMistral, {{"sliding_window", nullptr}});
  EXPECT_TRUE(whole["sliding_window"].is_null());
  EXPECT_EQ(whole["rope_theta"], 1e6);
  const Json experts = config_of(
      kMistral, {{"moe", {{"num_experts", 8}, {"num_experts_per_tok", 2}}}});
  EXPECT_EQ(experts["model_type"], "mixtral");
  EXPECT_EQ(experts["num_local_experts"], 8);
  EXPECT_EQ(experts["num_experts_per_tok"], 2);
}

TEST(ParamsJson, CountsTheVocabularyOverParts) {
  EXPECT_EQ(
      config_of(kMeta, {.rows = 150, .columns = 64, .parts = 2})["vocab_size"],
      300);
  EXPECT_EQ(
      config_of(kMeta, {.rows = 300, .columns = 32, .parts = 2})["vocab_size"],
      300);
}

TEST(ParamsJson, RefusesByNameWhatItDoesNotKnow) {
  EXPECT_SAYS(message_of(kMistral, {{"vision_encoder", {{"hidden_size", 4}}}}),
              "params.json: 'vision_encoder");
  EXPECT_SAYS(message_of(kMistral, {{"yarn", {{"factor", 4}}}}), "'yarn");
  EXPECT_SAYS(message_of(kMistral, {{"moe",
                                     {{"num_experts", 8},
                                      {"num_experts_per_tok", 2},
                                      {"num_shared_experts", 1}}}}),
              "num_shared_experts");
  EXPECT_SAYS(message_of(kMeta, {{"qk_norm", true}}), "'qk_norm'");
  EXPECT_EQ(message_of(kMeta, {{"quantization_args", nullptr}}), "no error");
}

TEST(ParamsJson, RefusesSizesThatAreNone) {
  for (const char* key : {"dim", "n_layers", "n_heads", "n_kv_heads"}) {
    EXPECT_SAYS(message_of(kMeta, {{key, 0}}), key);
    EXPECT_SAYS(message_of(kMeta, {{key, "x"}}), key);
  }
  EXPECT_SAYS(message_of(kMeta, {{"n_heads", 7}}), "a divisor of dim");
  EXPECT_SAYS(message_of(kMeta, {{"multiple_of", 0}}), "multiple_of");
  EXPECT_SAYS(message_of(kMeta, {{"ffn_dim_multiplier", -1}}),
              "ffn_dim_multiplier");
  EXPECT_SAYS(message_of(kMeta, {{"vocab_size", 299}}), "vocab_size");
}

}  // namespace
}  // namespace llmpress

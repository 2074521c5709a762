#include "compress/model/architecture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

// A configuration of `model_type` with the sizes that none may leave out.
std::string config(const std::string& model_type,
                   const std::string& more = "") {
  return R"({"model_type": ")" + model_type +
         R"(", "hidden_size": 64, "intermediate_size": 96,
             "num_hidden_layers": 3, "num_attention_heads": 8,
             "vocab_size": 100)" +
         more + "}";
}

Architecture parse(const std::string& model_type,
                   const std::string& more = "") {
  return parse_architecture(config(model_type, more), "config.json");
}

// The error's code and that its message names `part`.
void expect_error(const std::string& json, ErrorCode code,
                  const std::string& part) {
  try {
    parse_architecture(json, "dir");
    ADD_FAILURE() << "accepted: " << json;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("dir", 0), 0u) << error.what();
  }
}

std::vector<bool> biases(const Architecture& arch) {
  std::vector<bool> result;
  for (const LinearSpec& linear : arch.block.linears) {
    result.push_back(linear.bias);
  }
  return result;
}

TEST(Architecture, FillsAbsentKeysWithTheDefaultsOfTheLlamaClass) {
  const Architecture arch = parse("llama");
  EXPECT_EQ(arch.kv_heads, 8u);
  EXPECT_EQ(arch.head_dim, 8u);
  EXPECT_EQ(arch.max_positions, 2048u);
  EXPECT_EQ(arch.norm_eps, 1e-6);
  EXPECT_EQ(arch.rope.theta, 10000);
  EXPECT_EQ(arch.rope.scaling, RopeScaling::kNone);
  EXPECT_EQ(arch.activation, Activation::kSilu);
  EXPECT_FALSE(arch.tied_head);
  EXPECT_FALSE(arch.sliding_window.has_value());
  EXPECT_EQ(biases(arch), std::vector<bool>(7, false));
  EXPECT_FALSE(arch.eos_id.has_value());
}

TEST(Architecture, DescribesTheLinearsAndStagesOfABlock) {
  const Architecture arch =
      parse("llama", R"(, "num_key_value_heads": 2, "head_dim": 10)");
  const auto& linears = arch.block.linears;
  ASSERT_EQ(linears.size(), 7u);
  EXPECT_EQ(linears[0].out, 80u);  // q: 8 heads of 10
  EXPECT_EQ(linears[1].out, 20u);  // k: 2 heads of 10
  EXPECT_EQ(linears[3].in, 80u);   // o
  EXPECT_EQ(linears[3].out, 64u);
  EXPECT_EQ(linears[6].in, 96u);  // down
  EXPECT_EQ(arch.linear_name(2, 5), "model.layers.2.mlp.up_proj");
  ASSERT_EQ(arch.block.stages.size(), 4u);
  for (std::size_t s = 0; s < 4; ++s) {
    for (const std::size_t i : arch.block.stages[s].linears) {
      EXPECT_EQ(linears[i].stage, s);
      EXPECT_EQ(linears[i].in, arch.block.stages[s].in);
    }
  }
}

TEST(Architecture, FoldsScalesIntoVOnlyWhereEveryHeadHasItsOwnKeys) {
  const Architecture own = parse("llama");
  ASSERT_EQ(own.block.scale_groups.size(), 4u);
  EXPECT_EQ(own.block.scale_groups[0].source_norm, "input_layernorm");
  EXPECT_EQ(own.block.scale_groups[0].consumers,
            (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(own.block.scale_groups[1].source_linear, 2u);
  EXPECT_EQ(own.block.scale_groups[1].consumers, (std::vector<std::size_t>{3}));
  EXPECT_EQ(own.block.scale_groups[2].source_norm, "post_attention_layernorm");
  EXPECT_EQ(own.block.scale_groups[3].source_linear, 5u);
  EXPECT_EQ(own.block.scale_groups[3].consumers, (std::vector<std::size_t>{6}));

  const Architecture shared = parse("llama", R"(, "num_key_value_heads": 4)");
  ASSERT_EQ(shared.block.scale_groups.size(), 3u);
  for (const ScaleGroup& group : shared.block.scale_groups) {
    EXPECT_NE(group.source_linear, 2u);
  }
}

TEST(Architecture, TakesBiasesFromTheFamilyAndItsKeys) {
  const std::string both = R"(, "attention_bias": true, "mlp_bias": true)";
  EXPECT_EQ(biases(parse("llama", both)), std::vector<bool>(7, true));
  EXPECT_EQ(biases(parse("mistral", both)), std::vector<bool>(7, false));
  EXPECT_EQ(biases(parse("qwen2")),
            (std::vector<bool>{true, true, true, false, false, false, false}));
  EXPECT_EQ(biases(parse("qwen3", both)),
            (std::vector<bool>{true, true, true, true, false, false, false}));
}

TEST(Architecture, GivesQwen3NormsOfEachHeadAndItsOwnHeadWidth) {
  const Architecture arch = parse("qwen3");
  EXPECT_EQ(arch.head_dim, 128u);
  EXPECT_EQ(arch.block.query_norm, "self_attn.q_norm");
  EXPECT_EQ(arch.block.key_norm, "self_attn.k_norm");
  EXPECT_EQ(arch.block.norms.size(), 4u);
  EXPECT_TRUE(parse("qwen2").block.query_norm.empty());
}

TEST(Architecture, LimitsAttentionToAWindowWhereTheFamilyDoes) {
  EXPECT_EQ(parse("mistral").sliding_window, 4096u);
  EXPECT_EQ(parse("mistral", R"(, "sliding_window": 7)").sliding_window, 7u);
  EXPECT_TRUE(parse("mistral", R"(, "sliding_window": 7)").uses_window(2));
  EXPECT_FALSE(parse("mistral", R"(, "sliding_window": null)").uses_window(0));
  EXPECT_FALSE(parse("llama", R"(, "sliding_window": 7)").uses_window(0));
  EXPECT_FALSE(parse("qwen2", R"(, "sliding_window": 7)").uses_window(2));
  const Architecture some = parse(
      "qwen2",
      R"(, "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 2)");
  EXPECT_FALSE(some.uses_window(1));
  EXPECT_TRUE(some.uses_window(2));
}

TEST(Architecture, LetsLayerTypesDecideWhichLayersUseTheWindow) {
  const Architecture arch = parse(
      "qwen3",
      R"(, "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 0,
         "layer_types": ["full_attention", "sliding_attention", "full_attention"])");
  EXPECT_FALSE(arch.uses_window(0));
  EXPECT_TRUE(arch.uses_window(1));
  EXPECT_FALSE(arch.uses_window(2));
}

TEST(Architecture, ReadsRopeScalingUnderItsOldAndNewKeys) {
  const std::string llama3 =
      R"("factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 8192})";
  for (
      const std::string head :
      {R"(, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", )",
       R"(, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", )",
       R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", )"}) {
    const RopeConfig rope = parse("llama", head + llama3).rope;
    EXPECT_EQ(rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.original_max_positions, 8192u);
  }
  EXPECT_EQ(parse("llama", R"(, "rope_parameters": {"rope_type": "default"})")
                .rope.scaling,
            RopeScaling::kNone);
}

TEST(Architecture, DerivesYarnsAttentionFactor) {
  const auto factor = [](const std::string& more) {
    return parse("qwen2", R"(, "max_position_embeddings": 512, "rope_scaling":
        {"type": "yarn", "factor": 4)" +
                              more + "}")
        .rope.attention_factor;
  };
  const double s = 0.1 * std::log(4.0) + 1;
  EXPECT_DOUBLE_EQ(factor(""), s);
  EXPECT_DOUBLE_EQ(factor(R"(, "attention_factor": 1.5)"), 1.5);
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 2, "mscale_all_dim": 1)"),
                   (0.2 * std::log(4.0) + 1) / s);
  EXPECT_EQ(parse("qwen2", R"(, "max_position_embeddings": 512, "rope_scaling":
      {"type": "yarn", "factor": 4})")
                .rope.original_max_positions,
            512u);
}

TEST(Architecture, ReadsOneOrManyEndTokens) {
  EXPECT_EQ(parse("llama", R"(, "eos_token_id": 5)").eos_ids,
            (std::vector<std::size_t>{5}));
  const Architecture many = parse("llama", R"(, "eos_token_id": [7, 5])");
  EXPECT_EQ(many.eos_id, 7u);
  EXPECT_EQ(many.eos_ids, (std::vector<std::size_t>{7, 5}));
}

TEST(Architecture, KnowsTheNamesOfActivations) {
  const auto activation = [](const std::string& name) {
    return parse("llama", R"(, "hidden_act": ")" + name + "\"").activation;
  };
  EXPECT_EQ(activation("swish"), Activation::kSilu);
  EXPECT_EQ(activation("gelu"), Activation::kGeluErf);
  EXPECT_EQ(activation("gelu_new"), Activation::kGeluTanh);
  EXPECT_EQ(activation("gelu_pytorch_tanh"), Activation::kGeluTanh);
  EXPECT_EQ(activation("relu"), Activation::kRelu);
}

TEST(Architecture, NamesWhatItDoesNotSupport) {
  const auto unsupported = ErrorCode::kUnsupported;
  expect_error(config("gpt_bigcode"), unsupported,
               "known are llama, mistral, qwen2, qwen3");
  expect_error(config("llama", R"(, "hidden_act": "quick_gelu")"), unsupported,
               "quick_gelu");
  expect_error(config("llama", R"(, "rope_scaling": {"type": "longrope"})"),
               unsupported, "longrope");
  expect_error(config("llama", R"(, "partial_rotary_factor": 0.5)"),
               unsupported, "partial_rotary_factor");
  expect_error(
      config("llama", R"(, "rope_parameters": {"full_attention": {}})"),
      unsupported, "full_attention");
}

TEST(Architecture, RefusesSizesThatDoNotFit) {
  const auto invalid = ErrorCode::kInvalidInput;
  expect_error("{}", invalid, "model_type");
  expect_error(R"({"model_type": "llama"})", invalid, "hidden_size");
  expect_error(config("llama", R"(, "num_key_value_heads": 3)"), invalid,
               "multiple of num_key_value_heads 3");
  expect_error(config("llama", R"(, "num_key_value_heads": 0)"), invalid,
               "'num_key_value_heads' is 0");
  expect_error(config("llama", R"(, "head_dim": 7)"), invalid, "odd");
  expect_error(config("llama", R"(, "head_dim": -2)"), invalid, "head_dim");
  expect_error(config("llama", R"(, "max_position_embeddings": 1.5)"), invalid,
               "max_position_embeddings");
  expect_error(config("llama", R"(, "max_position_embeddings": 1e300)"),
               invalid, "max_position_embeddings");
  expect_error(config("llama", R"(, "rope_theta": 0)"), invalid, "rope_theta");
  expect_error(config("llama", R"(, "rope_scaling": {"type": "linear"})"),
               invalid, "factor");
  expect_error(config("llama", R"(, "tie_word_embeddings": "yes")"), invalid,
               "tie_word_embeddings");
  expect_error(config("mistral", R"(, "layer_types": ["sliding_attention"])"),
               invalid, "1 entries for 3 layers");
  expect_error("[]", ErrorCode::kCorruptFile, "");
  expect_error("{", ErrorCode::kCorruptFile, "");
}

}  // namespace
}  // namespace llmpress

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

// The window of the layer's attention, 0 for none.
std::size_t window(const Architecture& arch, std::size_t layer) {
  for (const Operation& op : arch.block(layer).operations) {
    if (const auto* a = std::get_if<AttentionOp>(&op.kind)) return a->window;
  }
  return 0;
}

std::vector<bool> biases(const Architecture& arch) {
  std::vector<bool> result;
  for (const LinearSpec& linear : arch.block(0).linears) {
    result.push_back(linear.bias);
  }
  return result;
}

TEST(Architecture, FillsAbsentKeysWithTheDefaultsOfTheLlamaClass) {
  const Architecture arch = parse("llama");
  EXPECT_EQ(arch.kv_heads, 8u);
  EXPECT_EQ(arch.head_dim, 8u);
  EXPECT_EQ(arch.max_positions, 2048u);
  EXPECT_EQ(arch.final_norm_options.epsilon, 1e-6f);
  EXPECT_EQ(arch.ropes[0].theta, 10000);
  EXPECT_EQ(arch.ropes[0].scaling, RopeScaling::kNone);
  EXPECT_FALSE(arch.tied_head);
  EXPECT_EQ(window(arch, 0), 0u);
  EXPECT_EQ(biases(arch), std::vector<bool>(7, false));
  EXPECT_FALSE(arch.eos_id.has_value());
}

TEST(Architecture, DescribesTheLinearsAndStagesOfABlock) {
  const Architecture arch =
      parse("llama", R"(, "num_key_value_heads": 2, "head_dim": 10)");
  const auto& linears = arch.block(0).linears;
  ASSERT_EQ(linears.size(), 7u);
  EXPECT_EQ(linears[0].out, 80u);  // q: 8 heads of 10
  EXPECT_EQ(linears[1].out, 20u);  // k: 2 heads of 10
  EXPECT_EQ(linears[3].in, 80u);   // o
  EXPECT_EQ(linears[3].out, 64u);
  EXPECT_EQ(linears[6].in, 96u);  // down
  EXPECT_EQ(arch.linear_name(2, 5), "model.layers.2.mlp.up_proj");
  ASSERT_EQ(arch.block(0).stages.size(), 4u);
  for (std::size_t s = 0; s < 4; ++s) {
    for (const std::size_t i : arch.block(0).stages[s].linears) {
      EXPECT_EQ(linears[i].stage, s);
      EXPECT_EQ(linears[i].in, arch.block(0).stages[s].in);
    }
  }
}

TEST(Architecture, FoldsScalesIntoVOnlyWhereEveryHeadHasItsOwnKeys) {
  const Architecture own = parse("llama");
  ASSERT_EQ(own.block(0).scale_groups.size(), 4u);
  EXPECT_EQ(own.block(0).scale_groups[0].source_norm, "input_layernorm");
  EXPECT_EQ(own.block(0).scale_groups[0].consumers,
            (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(own.block(0).scale_groups[1].source_linear, 2u);
  EXPECT_EQ(own.block(0).scale_groups[1].consumers,
            (std::vector<std::size_t>{3}));
  EXPECT_EQ(own.block(0).scale_groups[2].source_norm,
            "post_attention_layernorm");
  EXPECT_EQ(own.block(0).scale_groups[3].source_linear, 5u);
  EXPECT_EQ(own.block(0).scale_groups[3].consumers,
            (std::vector<std::size_t>{6}));

  const Architecture shared = parse("llama", R"(, "num_key_value_heads": 4)");
  ASSERT_EQ(shared.block(0).scale_groups.size(), 3u);
  for (const ScaleGroup& group : shared.block(0).scale_groups) {
    EXPECT_NE(group.source_linear, 2u);
  }
}

TEST(Architecture, TakesBiasesFromTheFamilyAndItsKeys) {
  const std::string both = R"(, "attention_bias": true, "mlp_bias": true)";
  EXPECT_EQ(biases(parse("llama", both)), std::vector<bool>(7, true));
  expect_error(config("mistral", both), ErrorCode::kUnsupported,
               "'attention_bias' is not understood");
  EXPECT_EQ(biases(parse("qwen2")),
            (std::vector<bool>{true, true, true, false, false, false, false}));
  EXPECT_EQ(biases(parse("qwen3", R"(, "attention_bias": true)")),
            (std::vector<bool>{true, true, true, true, false, false, false}));
  expect_error(config("qwen3", both), ErrorCode::kUnsupported,
               "'mlp_bias' is not understood");
}

TEST(Architecture, GivesQwen3NormsOfEachHeadAndItsOwnHeadWidth) {
  const Architecture arch = parse("qwen3");
  EXPECT_EQ(arch.head_dim, 128u);
  ASSERT_EQ(arch.block(0).norms.size(), 4u);
  EXPECT_EQ(arch.block(0).norms[1].name, "self_attn.q_norm");
  EXPECT_EQ(arch.block(0).norms[1].width, 128u);
  EXPECT_EQ(arch.block(0).norms[2].name, "self_attn.k_norm");
  EXPECT_EQ(parse("qwen2").block(0).norms.size(), 2u);
}

TEST(Architecture, LimitsAttentionToAWindowWhereTheFamilyDoes) {
  EXPECT_EQ(window(parse("mistral"), 0), 4096u);
  EXPECT_EQ(window(parse("mistral", R"(, "sliding_window": 7)"), 2), 7u);
  EXPECT_EQ(window(parse("mistral", R"(, "sliding_window": null)"), 0), 0u);
  EXPECT_EQ(window(parse("qwen2", R"(, "sliding_window": 7)"), 2), 0u);
  const Architecture some = parse(
      "qwen2",
      R"(, "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 2)");
  EXPECT_EQ(window(some, 1), 0u);
  EXPECT_EQ(window(some, 2), 7u);
}

TEST(Architecture, LetsLayerTypesDecideWhichLayersUseTheWindow) {
  const Architecture arch = parse(
      "qwen3",
      R"(, "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 0,
         "layer_types": ["full_attention", "sliding_attention", "full_attention"])");
  EXPECT_EQ(window(arch, 0), 0u);
  EXPECT_EQ(window(arch, 1), 7u);
  EXPECT_EQ(window(arch, 2), 0u);
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
    const RopeConfig rope = parse("llama", head + llama3).ropes[0];
    EXPECT_EQ(rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(rope.theta, 5e5);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.original_max_positions, 8192u);
  }
  EXPECT_EQ(parse("llama", R"(, "rope_parameters": {"rope_type": "default"})")
                .ropes[0]
                .scaling,
            RopeScaling::kNone);
}

TEST(Architecture, DerivesYarnsAttentionFactor) {
  const auto factor = [](const std::string& more) {
    return parse("qwen2", R"(, "max_position_embeddings": 512, "rope_scaling":
        {"type": "yarn", "factor": 4)" +
                              more + "}")
        .ropes[0]
        .attention_factor;
  };
  const double s = 0.1 * std::log(4.0) + 1;
  EXPECT_DOUBLE_EQ(factor(""), s);
  EXPECT_DOUBLE_EQ(factor(R"(, "attention_factor": 1.5)"), 1.5);
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 2, "mscale_all_dim": 1)"),
                   (0.2 * std::log(4.0) + 1) / s);
  EXPECT_EQ(parse("qwen2", R"(, "max_position_embeddings": 512, "rope_scaling":
      {"type": "yarn", "factor": 4})")
                .ropes[0]
                .original_max_positions,
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
    const Architecture arch =
        parse("llama", R"(, "hidden_act": ")" + name + "\"");
    for (const Operation& op : arch.block(0).operations) {
      if (const auto* gate = std::get_if<GateOp>(&op.kind)) {
        return gate->activation;
      }
    }
    throw std::logic_error("no gate");
  };
  EXPECT_EQ(activation("swish"), Activation::kSilu);
  EXPECT_EQ(activation("gelu"), Activation::kGeluErf);
  EXPECT_EQ(activation("gelu_new"), Activation::kGeluTanh);
  EXPECT_EQ(activation("gelu_pytorch_tanh"), Activation::kGeluTanh);
  EXPECT_EQ(activation("relu"), Activation::kRelu);
}

TEST(Architecture, NamesWhatItDoesNotSupport) {
  const auto unsupported = ErrorCode::kUnsupported;
  expect_error(config("xglm"), unsupported, "known are ");
  expect_error(config("llama", R"(, "hidden_act": "quick_gelu")"), unsupported,
               "quick_gelu");
  expect_error(config("llama", R"(, "rope_scaling": {"type": "dynamic"})"),
               unsupported, "dynamic");
  expect_error(config("llama", R"(, "sliding_window": 7)"), unsupported,
               "sliding_window");
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
               "'num_key_value_heads' is 0, wanted");
  expect_error(config("llama", R"(, "head_dim": 7)"), invalid,
               "turns 7 coordinates");
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

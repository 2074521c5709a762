// What the families' files refuse, and where wrapped decoders are.
#include <gtest/gtest.h>

#include <string>

#include "compress/core/error.h"
#include "compress/model/architecture.h"

namespace llmpress {
namespace {

std::string config(const std::string& model_type, const std::string& more) {
  return R"({"model_type": ")" + model_type +
         R"(", "hidden_size": 64, "intermediate_size": 96,
             "num_hidden_layers": 2, "num_attention_heads": 8,
             "num_key_value_heads": 4, "vocab_size": 100)" +
         more + "}";
}

std::string refusal(const std::string& json) {
  try {
    parse_architecture(json, "dir");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

struct Refused {
  const char* model_type;
  const char* more;
  const char* part;  // of the message
};

class FamilyKeys : public testing::TestWithParam<Refused> {};

TEST_P(FamilyKeys, RefuseByNameWhatTheyCannotCompute) {
  const Refused& row = GetParam();
  const std::string found = refusal(config(row.model_type, row.more));
  EXPECT_NE(found.find(row.part), std::string::npos) << found;
}

INSTANTIATE_TEST_SUITE_P(
    All, FamilyKeys,
    testing::Values(
        Refused{"falcon", R"(, "alibi": true)", "'alibi'"},
        Refused{"falcon",
                R"(, "new_decoder_architecture": true, "parallel_attn": false)",
                "'parallel_attn'"},
        Refused{"opt",
                R"(, "ffn_dim": 96, "layer_norm_elementwise_affine": false)",
                "'layer_norm_elementwise_affine'"},
        Refused{"gemma3_text", R"(, "attn_logit_softcapping": 50.0)",
                "'attn_logit_softcapping'"},
        Refused{"gemma3_text", R"(, "use_bidirectional_attention": true)",
                "'use_bidirectional_attention'"},
        Refused{"gemma3_text", R"(, "rope_parameters": {"rope_theta": 5.0})",
                "rope_parameters.rope_theta"},
        Refused{"gemma4_text", R"(, "enable_moe_block": true)",
                "'enable_moe_block'"},
        Refused{"mistral",
                R"(, "layer_types": ["sliding_attention", "full_attention"])",
                "'layer_types'"},
        Refused{"phi3",
                R"(, "rope_scaling": {"type": "linear", "factor": 2.0})",
                "'rope_scaling'"},
        Refused{"cohere2", R"(, "sliding_window": null)", "'sliding_window'"},
        Refused{"granite", R"(, "partial_rotary_factor": 0.5)",
                "'partial_rotary_factor'"},
        Refused{"smollm3",
                R"(, "layer_types": ["sliding_attention", "full_attention"])",
                "'layer_types'"},
        Refused{"llama", R"(, "per_layer_config": {"1": {"head_dim": 4}})",
                "'per_layer_config'"}));

std::string wrapped(const std::string& outer, const std::string& text) {
  return R"({"model_type": ")" + outer + R"(", "vision_config": {"a": 1},
             "text_config": )" +
         text + "}";
}

TEST(Wrappers, NameTheDecodersTensorsWhereTheyAre) {
  const Architecture arch =
      parse_architecture(wrapped("mistral3", config("mistral", "")), "dir");
  EXPECT_EQ(arch.model_type, "mistral");
  EXPECT_EQ(arch.config_object, "text_config");
  EXPECT_EQ(arch.linear_name(1, 0),
            "model.language_model.layers.1.self_attn.q_proj");
  EXPECT_EQ(arch.embedding, "model.language_model.embed_tokens");
  EXPECT_EQ(arch.final_norm, "model.language_model.norm");
  EXPECT_EQ(arch.head, "lm_head");
  Architecture older = arch;
  move_tensors(older, arch.other_places.at(0));
  EXPECT_EQ(older.linear_name(0, 1),
            "language_model.model.layers.0.self_attn.k_proj");
  EXPECT_EQ(older.head, "language_model.lm_head");
}

TEST(Wrappers, AreRefusedWhereTheyOrTheirDecoderAreNotKnown) {
  EXPECT_NE(refusal(wrapped("paligemma", config("gemma", "")))
                .find("'paligemma' with a text_config"),
            std::string::npos);
  EXPECT_NE(refusal(wrapped("llava", config("mpt", ""))).find("'mpt'"),
            std::string::npos);
  // The wrapper's logits are not divided as Granite's are.
  EXPECT_NE(refusal(wrapped("llava_next",
                            config("granite", R"(, "logits_scaling": 8.0)")))
                .find("'text_config'"),
            std::string::npos);
  EXPECT_NE(
      refusal(wrapped("llava", config("llama", R"(, "odd": 1)"))).find("'odd'"),
      std::string::npos);
}

}  // namespace
}  // namespace llmpress

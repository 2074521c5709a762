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
        Refused{"cohere", R"(, "sliding_window": 4096)", "'sliding_window'"},
        Refused{"olmo", R"(, "rms_norm_eps": 1e-6)", "'rms_norm_eps'"},
        Refused{"helium", R"(, "head_dim": 16)", "'head_dim'"},
        Refused{"hunyuan_v1_dense",
                R"(, "rope_scaling": {"type": "dynamic", "factor": 2.0})",
                "\"dynamic\""},
        Refused{"hunyuan_v1_dense", R"(, "use_qk_norm": false)",
                "'use_qk_norm'"},
        Refused{"hunyuan_v1_moe", R"(, "moe_topk": [1, 2])", "'moe_topk'"},
        Refused{"cwm", R"(, "rope_theta": 1e6)", "'rope_parameters'"},
        Refused{"ernie4_5_moe", R"(, "moe_norm_min": 0.5)", "'moe_norm_min'"},
        Refused{"minimax_m2", R"(, "scoring_func": "softmax")",
                "'scoring_func'"},
        Refused{"dots1",
                R"(, "n_routed_experts": 8, "num_experts_per_tok": 2,
                "n_shared_experts": 1, "scoring_func": "softmax")",
                "'scoring_func'"},
        Refused{"exaone_moe", R"(, "mlp_layer_types": ["dense", "odd"])",
                "'mlp_layer_types'"},
        Refused{"solar_open", R"(, "use_qk_norm": true)", "'use_qk_norm'"},
        Refused{"lfm2_moe", R"(, "moe_intermediate_size": 32)",
                "'layer_types'"},
        Refused{"qwen3_5_moe_text", R"(, "norm_topk_prob": false)",
                "'norm_topk_prob'"},
        Refused{"mpt", R"(, "d_model": 64, "n_heads": 8, "n_layers": 2,
                "attn_config": {"alibi": false})",
                "'alibi'"},
        Refused{"mpt", R"(, "d_model": 64, "n_heads": 8, "n_layers": 2,
                "logit_scale": 0.5)",
                "'logit_scale'"},
        Refused{"gpt_bigcode", R"(, "add_cross_attention": true)",
                "'add_cross_attention'"},
        Refused{"codegen", R"(, "n_embd": 66)", "'n_embd'"},
        Refused{"gpt_neo", R"(, "num_layers": 2, "num_heads": 8,
                "attention_layers": ["global", "odd"])",
                "'attention_layers'"},
        Refused{"glm4_moe_lite", "", "'num_key_value_heads'"},
        Refused{"bamba", R"(, "attn_rotary_emb": 8)", "'attn_rotary_emb'"},
        Refused{"vaultgemma", R"(, "use_bidirectional_attention": true)",
                "'use_bidirectional_attention'"},
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
  EXPECT_NE(refusal(wrapped("llava", config("xglm", ""))).find("'xglm'"),
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

// Near relatives of known families that compute something else.
TEST(Families, AreNotTakenForTheirRelatives) {
  for (const std::string type : {"cohere2_moe",
                                 "cohere2_vision",
                                 "exaone4_5",
                                 "gemma3n",
                                 "gemma3n_text",
                                 "glm4v",
                                 "glm4v_text",
                                 "glm4v_moe_text",
                                 "llama4_vision_model",
                                 "mamba3",
                                 "mllama_text_model",
                                 "olmo_hybrid",
                                 "phi4_multimodal",
                                 "qwen2_5_omni",
                                 "qwen3_omni_moe",
                                 "qwen3_omni_moe_text",
                                 "qwen3_vl_moe_text",
                                 "deepseek_v32",
                                 "granite_swa",
                                 "granitemoe_swa",
                                 "Llama",
                                 "llama "}) {
    const std::string alone = refusal(config(type, ""));
    EXPECT_NE(alone.find("model_type '" + type + "' is not supported"),
              std::string::npos)
        << alone;
    for (const std::string outer :
         {"llava", "qwen3_vl", "gemma3", "internvl"}) {
      EXPECT_NE(refusal(wrapped(outer, config(type, "")))
                    .find("model_type '" + type + "' is not supported"),
                std::string::npos)
          << outer << ", " << type;
    }
    EXPECT_NE(refusal(wrapped(type, config("llama", "")))
                  .find("'" + type + "' with a text_config"),
              std::string::npos)
        << type;
  }
}

}  // namespace
}  // namespace llmpress

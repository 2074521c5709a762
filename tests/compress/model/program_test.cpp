#include "compress/model/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "compress/model/architecture.h"

namespace llmpress {
namespace {

// As DeepSeek-V3's config.json has it, without keys of other readers.
constexpr const char* kDeepSeekV3 = R"({
  "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
  "intermediate_size": 18432, "moe_intermediate_size": 2048,
  "num_hidden_layers": 61, "num_nextn_predict_layers": 1,
  "num_attention_heads": 128, "num_key_value_heads": 128,
  "n_shared_experts": 1, "n_routed_experts": 256, "ep_size": 1,
  "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "q_lora_rank": 1536,
  "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
  "topk_method": "noaux_tc", "n_group": 8, "topk_group": 4,
  "num_experts_per_tok": 8, "moe_layer_freq": 1, "first_k_dense_replace": 3,
  "norm_topk_prob": true, "scoring_func": "sigmoid", "aux_loss_alpha": 0.001,
  "seq_aux": true, "hidden_act": "silu", "max_position_embeddings": 163840,
  "rms_norm_eps": 1e-06, "rope_theta": 10000, "attention_bias": false,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40,
    "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096, "type": "yarn"}})";

std::vector<std::string> names_of(const BlockSpec& block,
                                  const std::vector<std::size_t>& linears) {
  std::vector<std::string> names;
  for (const std::size_t l : linears) names.push_back(block.linears[l].name);
  return names;
}

class DeepSeekV3 : public testing::Test {
 protected:
  const Architecture arch_ = parse_architecture(kDeepSeekV3, "config.json");
  const BlockSpec& mixed_ = arch_.block(60);

  // The Linears into which a scale moves from a Linear.
  std::vector<std::string> scaled_by(const std::string& source) const {
    for (const ScaleGroup& group : mixed_.scale_groups) {
      if (group.source_linear &&
          mixed_.linears[*group.source_linear].name == source) {
        return names_of(mixed_, group.consumers);
      }
    }
    return {};
  }
};

TEST_F(DeepSeekV3, LayersOfOneKindShareTheirProgram) {
  ASSERT_EQ(arch_.kinds.size(), 2u);
  EXPECT_EQ(arch_.kind_of_layer[2], 0u);
  EXPECT_EQ(arch_.kind_of_layer[3], 1u);
  EXPECT_EQ(arch_.block(0).linears.size(), 8u);
  EXPECT_EQ(mixed_.linears.size(), 5u + 1 + 3 + 3 * 256);
}

TEST_F(DeepSeekV3, LinearsOfOneInputAreAStage) {
  std::vector<std::string> first;
  for (const StageSpec& stage : mixed_.stages) {
    first.push_back(mixed_.linears[stage.linears.front()].name);
  }
  EXPECT_EQ(first, (std::vector<std::string>{
                       "self_attn.q_a_proj", "self_attn.q_b_proj",
                       "self_attn.kv_b_proj", "self_attn.o_proj", "mlp.gate",
                       "mlp.shared_experts.down_proj",
                       "mlp.experts.0.gate_proj", "mlp.experts.0.down_proj"}));
  EXPECT_EQ(
      names_of(mixed_, mixed_.stages[4].linears),
      (std::vector<std::string>{"mlp.gate", "mlp.shared_experts.gate_proj",
                                "mlp.shared_experts.up_proj"}));
  EXPECT_EQ(mixed_.stages[4].groups, 1u);
  EXPECT_EQ(mixed_.stages[6].linears.size(), 2u * 256);
  EXPECT_EQ(mixed_.stages[6].groups, 256u);
  EXPECT_EQ(mixed_.stages[7].groups, 256u);
}

TEST_F(DeepSeekV3, OnlyTheRouterIsARouter) {
  for (const LinearSpec& linear : mixed_.linears) {
    EXPECT_EQ(linear.role == LinearRole::kRouter, linear.name == "mlp.gate");
  }
}

TEST_F(DeepSeekV3, ScalesMoveFromNormsAndWithinExperts) {
  EXPECT_EQ(scaled_by("mlp.experts.255.up_proj"),
            std::vector<std::string>{"mlp.experts.255.down_proj"});
  EXPECT_EQ(scaled_by("mlp.shared_experts.up_proj"),
            std::vector<std::string>{"mlp.shared_experts.down_proj"});
  EXPECT_TRUE(scaled_by("self_attn.kv_b_proj").empty());
  std::vector<std::pair<std::string, std::size_t>> norms;
  for (const ScaleGroup& group : mixed_.scale_groups) {
    if (group.source_linear) continue;
    norms.emplace_back(group.source_norm, group.consumers.size());
  }
  std::ranges::sort(norms);
  EXPECT_EQ(norms, (std::vector<std::pair<std::string, std::size_t>>{
                       {"input_layernorm", 2},
                       {"post_attention_layernorm", 3 + 2 * 256},
                       {"self_attn.kv_a_layernorm", 1},
                       {"self_attn.q_a_layernorm", 1}}));
}

TEST_F(DeepSeekV3, YarnScalesTheScores) {
  for (const Operation& op : mixed_.operations) {
    if (const auto* const a = std::get_if<AttentionOp>(&op.kind)) {
      // 192^-1/2 (0.1 ln 40 + 1)^2
      EXPECT_NEAR(a->scale, 0.13523377f, 1e-7);
      EXPECT_EQ(a->head_dim, 192u);
      EXPECT_EQ(a->value_dim, 128u);
    }
  }
}

}  // namespace
}  // namespace llmpress

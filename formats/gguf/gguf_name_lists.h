// Lists of names and keys that several rows of the table of architectures share
// (gguf_architecture.h).
#pragma once

#include <array>
#include <cstddef>

#include "formats/gguf/gguf_architecture.h"

namespace llmpress::gguf_lists {

using Change = GgufChange;
using Names = GgufTensorName;

// Several lists in one.
template <class Row, std::size_t... kCounts>
constexpr auto joined(const Row (&... lists)[kCounts]) {
  std::array<Row, (kCounts + ...)> all{};
  std::size_t at = 0;
  const auto append = [&](const auto& list) {
    for (const Row& row : list) all[at++] = row;
  };
  (append(lists), ...);
  return all;
}

inline constexpr Names kEnds[] = {{"token_embd", "model.embed_tokens"},
                                  {"output_norm", "model.norm"},
                                  {"output", "lm_head"}};

inline constexpr Names kNorms[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"}};

inline constexpr Names kAttention[] = {
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"}};

inline constexpr Names kTurnedAttention[] = {
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj", Change::kQueryRows},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj", Change::kKeyRows},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"}};

inline constexpr Names kMlp[] = {
    {"blk.{}.ffn_gate", "model.layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"}};

inline constexpr Names kHeadNorms[] = {
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm"},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm"}};

inline constexpr Names kNormsAfter[] = {
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm"}};

inline constexpr Names kRouter[] = {
    {"blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate"}};

inline constexpr Names kExperts[] = {
    {"blk.{}.ffn_gate_exps", "model.layers.{}.mlp.experts.{e}.gate_proj"},
    {"blk.{}.ffn_down_exps", "model.layers.{}.mlp.experts.{e}.down_proj"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.mlp.experts.{e}.up_proj"}};

inline constexpr Names kSharedExperts[] = {
    {"blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_experts.gate_proj"},
    {"blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_experts.down_proj"},
    {"blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_experts.up_proj"}};

// Mamba-2's mixer beside attention.
inline constexpr Names kMixer[] = {
    {"blk.{}.ssm_in", "model.layers.{}.mamba.in_proj"},
    {"blk.{}.ssm_conv1d", "model.layers.{}.mamba.conv1d", Change::kTaps},
    {"blk.{}.ssm_dt.bias", "model.layers.{}.mamba.dt_bias", Change::kNone,
     true},
    {"blk.{}.ssm_a", "model.layers.{}.mamba.A_log", Change::kMinusExpColumn,
     true},
    {"blk.{}.ssm_d", "model.layers.{}.mamba.D", Change::kColumn, true},
    {"blk.{}.ssm_norm", "model.layers.{}.mamba.norm", Change::kGroups},
    {"blk.{}.ssm_out", "model.layers.{}.mamba.out_proj"}};

// Granite's mixture and, if there is one, the MLP beside it.
inline constexpr Names kGraniteExperts[] = {
    {"blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.router.layer"},
    {"blk.{}.ffn_gate_exps",
     "model.layers.{}.block_sparse_moe.experts.{e}.gate_proj"},
    {"blk.{}.ffn_up_exps",
     "model.layers.{}.block_sparse_moe.experts.{e}.up_proj"},
    {"blk.{}.ffn_down_exps",
     "model.layers.{}.block_sparse_moe.experts.{e}.down_proj"},
    {"blk.{}.ffn_gate_shexp", "model.layers.{}.shared_mlp.input_linear",
     Change::kUpperHalf},
    {"blk.{}.ffn_up_shexp", "model.layers.{}.shared_mlp.input_linear",
     Change::kLowerHalf},
    {"blk.{}.ffn_down_shexp", "model.layers.{}.shared_mlp.output_linear"}};

inline constexpr GgufKey kGraniteScales[] = {
    {"attention.scale", "attention_multiplier", true, 1},
    {"embedding_scale", "embedding_multiplier", true, 1},
    {"residual_scale", "residual_multiplier", true, 1},
    {"logit_scale", "logits_scaling", true, 1}};

inline constexpr GgufKey kSizes[] = {
    {"context_length", "max_position_embeddings", false, 2048},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"}};

inline constexpr GgufKey kRms[] = {
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6}};

inline constexpr GgufKey kRmsOfOlmo[] = {
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-5}};

inline constexpr GgufKey kLayerNorm[] = {
    {"attention.layer_norm_epsilon", "layer_norm_eps", true, 1e-5}};

}  // namespace llmpress::gguf_lists

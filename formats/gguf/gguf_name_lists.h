// Lists of names that several rows of the table of architectures share
// (gguf_architecture.h).
#pragma once

#include <array>
#include <cstddef>

#include "formats/gguf/gguf_architecture.h"

namespace llmpress::gguf_lists {

using Change = GgufChange;
using Names = GgufTensorName;

// Several lists in one.
template <std::size_t... kCounts>
constexpr auto joined(const Names (&... lists)[kCounts]) {
  std::array<Names, (kCounts + ...)> all{};
  std::size_t at = 0;
  const auto append = [&](const auto& list) {
    for (const Names& row : list) all[at++] = row;
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

}  // namespace llmpress::gguf_lists

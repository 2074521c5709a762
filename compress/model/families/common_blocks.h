// Parts of block programs that many families share.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "compress/model/program_builder.h"

namespace llmpress {

// o(attention(rope(norm(q)), rope(norm(k)), v)); q, k, v of x, each a Linear.
struct SelfAttention {
  std::string prefix = "self_attn.";
  std::string q = "q_proj", k = "k_proj", v = "v_proj", o = "o_proj";
  std::size_t hidden = 0;  // rows of o
  bool qkv_bias = false, o_bias = false;
  std::optional<NormOptions> qk_norm{};  // before the rotary embedding
  std::string q_norm = "q_norm", k_norm = "k_norm";
  std::optional<RopeOp> rope{};  // none: no positions
  AttentionOp attention{};
};
ValueId self_attention(ProgramBuilder& program, ValueId x,
                       const SelfAttention& part);

// down(activation(gate(x)) * up(x)).
struct GatedMlp {
  std::string prefix = "mlp.";
  std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::size_t ffn = 0, hidden = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;
};
ValueId gated_mlp(ProgramBuilder& program, ValueId x, const GatedMlp& part);

// down(activation(up(x))).
struct PlainMlp {
  std::string prefix = "mlp.";
  std::string up = "fc1", down = "fc2";
  std::size_t ffn = 0, hidden = 0;
  Activation activation = Activation::kGeluTanh;
  bool bias = true;
  std::optional<LinearStorage> up_storage{}, down_storage{};
};
ValueId plain_mlp(ProgramBuilder& program, ValueId x, const PlainMlp& part);

// 1 / sqrt(head_dim), as the reference rounds it.
float attention_scale(std::size_t head_dim);

}  // namespace llmpress

// Parts of block programs that many families share.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/program_builder.h"

namespace llmpress {

// o(attention(rope(norm(q)), rope(norm(k)), v)); q, k, v of x, each a Linear or
// cut out of one.
struct SelfAttention {
  std::string prefix = "self_attn.";
  std::string q = "q_proj", k = "k_proj", v = "v_proj", o = "o_proj";
  // One Linear for q, k and v, and the groups of heads in which its rows lie.
  std::string qkv{};
  std::size_t qkv_groups = 1;
  std::optional<LinearStorage> qkv_storage{}, o_storage{};
  std::size_t hidden = 0;  // rows of o
  bool qkv_bias = false, o_bias = false;
  std::optional<NormOptions> qk_norm{};  // before the rotary embedding, unless
                                         // norm_after_rope
  std::string q_norm = "q_norm", k_norm = "k_norm";
  std::optional<float> clip{};  // of q, k and v to [-clip, clip], after that
  // The norms are those of each head: `%` in their names is its number.
  bool norms_by_head = false;
  bool head_gains = false;  // likewise, in one tensor [heads, head_dim]
  bool norm_after_rope = false;
  std::optional<RopeOp> rope{};  // none: no positions
  std::optional<PositionScaleOp> query_scale{};
  AttentionOp attention{};
};
ValueId self_attention(ProgramBuilder& program, ValueId x,
                       const SelfAttention& part);

// down(activation(gate(x)) * up(x)).
struct GatedMlp {
  std::string prefix = "mlp.";
  std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string gate_up{};  // one Linear for both, gate first
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

// What a block adds to the stream: x [tokens, hidden] -> [tokens, hidden].
using BlockPart = std::function<ValueId(ValueId)>;

// The norms around attention and MLP by name; empty: none.
struct BlockNorms {
  std::string before_attention = "input_layernorm", after_attention{};
  std::string before_mlp = "post_attention_layernorm", after_mlp{};
  NormOptions options{};
  float residual_factor = 1;  // of both parts
};

// h = x + attention(norm(x)); h + mlp(norm(h)), each part with a norm after it
// where one is named.
BlockSpec sequential_block(const BlockNorms& norms, ProgramBuilder& program,
                           const BlockPart& attention, const BlockPart& mlp);
// x + attention(norm(x)) + mlp(norm(x)); without a norm `before_mlp` both read
// the same.
BlockSpec parallel_block(const BlockNorms& norms, ProgramBuilder& program,
                         const BlockPart& attention, const BlockPart& mlp);

// Heads and widths of `arch`, scores scaled by 1 / sqrt(head_dim).
AttentionOp attention_of(const Architecture& arch, std::size_t window = 0);

// arXiv:2108.12409, section 3: for n = 2^k heads 2^(-8 i / n), i = 1..n; for
// other n those of the next lower power and every other one of the next higher.
std::vector<float> alibi_slopes(std::size_t heads);

// 1 / sqrt(head_dim), as the reference rounds it.
float attention_scale(std::size_t head_dim);

// One program for every key that differs from those before it.
template <class Key, class Make>
void set_blocks_by(Architecture& arch, const std::vector<Key>& key_of_layer,
                   const Make& make) {
  std::vector<Key> keys;
  std::vector<BlockSpec> kinds;
  std::vector<std::size_t> kind_of_layer;
  for (const Key& key : key_of_layer) {
    std::size_t kind = 0;
    while (kind < keys.size() && !(keys[kind] == key)) ++kind;
    if (kind == keys.size()) {
      keys.push_back(key);
      kinds.push_back(make(key));
    }
    kind_of_layer.push_back(kind);
  }
  set_blocks(arch, std::move(kinds), std::move(kind_of_layer));
}

}  // namespace llmpress

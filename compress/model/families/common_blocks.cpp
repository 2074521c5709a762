#include "compress/model/families/common_blocks.h"

#include <cmath>

namespace llmpress {

float attention_scale(std::size_t head_dim) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

ValueId self_attention(ProgramBuilder& program, ValueId x,
                       const SelfAttention& part) {
  const AttentionOp& a = part.attention;
  const auto in = [&](const std::string& name, std::size_t width, Axis axis) {
    return program.linear(x, part.prefix + name, width,
                          {.bias = part.qkv_bias, .axis = axis});
  };
  ValueId q = in(part.q, a.heads * a.head_dim, Axis::kQuery);
  ValueId k = in(part.k, a.kv_heads * a.head_dim, Axis::kKey);
  const ValueId v = in(part.v, a.kv_heads * a.value_dim, Axis::kValue);
  if (part.qk_norm) {
    q = program.norm(q, part.prefix + part.q_norm, *part.qk_norm);
    k = program.norm(k, part.prefix + part.k_norm, *part.qk_norm);
  }
  if (part.rope) {
    q = program.rope(q, *part.rope);
    k = program.rope(k, *part.rope);
  }
  const ValueId mixed = program.attention(q, k, v, a);
  return program.linear(mixed, part.prefix + part.o, part.hidden,
                        {.bias = part.o_bias, .axis = Axis::kHidden});
}

ValueId gated_mlp(ProgramBuilder& program, ValueId x, const GatedMlp& part) {
  const LinearOptions inner{.bias = part.bias, .axis = Axis::kFfn};
  const ValueId gate =
      program.linear(x, part.prefix + part.gate, part.ffn, inner);
  const ValueId up = program.linear(x, part.prefix + part.up, part.ffn, inner);
  return program.linear(program.gate(gate, up, part.activation),
                        part.prefix + part.down, part.hidden,
                        {.bias = part.bias, .axis = Axis::kHidden});
}

ValueId plain_mlp(ProgramBuilder& program, ValueId x, const PlainMlp& part) {
  const ValueId up = program.linear(
      x, part.prefix + part.up, part.ffn,
      {.bias = part.bias, .axis = Axis::kFfn, .storage = part.up_storage});
  return program.linear(
      program.activation(up, part.activation), part.prefix + part.down,
      part.hidden,
      {.bias = part.bias, .axis = Axis::kHidden, .storage = part.down_storage});
}

}  // namespace llmpress

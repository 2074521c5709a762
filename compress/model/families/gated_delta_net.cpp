#include "compress/model/families/gated_delta_net.h"

#include <string>
#include <vector>

#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

const std::string kPrefix = "linear_attn.";

struct Inputs {
  ValueId qkv = 0, z = 0, a = 0, b = 0;
};

Inputs fused_inputs(ProgramBuilder& program, ValueId x,
                    const GatedDeltaNet& part) {
  const std::size_t heads = part.key_heads, ratio = part.value_heads / heads;
  const std::size_t values = ratio * part.value_dim;
  const LinearOptions state{.axis = Axis::kState};
  const ValueId qkvz = program.linear(
      x, kPrefix + "in_proj_qkvz", 2 * heads * (part.key_dim + values), state);
  const ValueId ba =
      program.linear(x, kPrefix + "in_proj_ba", 2 * part.value_heads, state);
  const auto parts =
      program.split(qkvz, heads, {part.key_dim, part.key_dim, values, values},
                    std::vector<Axis>(4, Axis::kState));
  const auto gates = program.split(ba, heads, {ratio, ratio},
                                   std::vector<Axis>(2, Axis::kOther));
  const ValueId qkv =
      program.join({parts[0], parts[1], parts[2]}, 1,
                   {heads * part.key_dim, heads * part.key_dim, heads * values},
                   Axis::kState);
  return {.qkv = qkv, .z = parts[3], .a = gates[1], .b = gates[0]};
}

Inputs separate_inputs(ProgramBuilder& program, ValueId x,
                       const GatedDeltaNet& part) {
  const std::size_t keys = part.key_heads * part.key_dim;
  const std::size_t values = part.value_heads * part.value_dim;
  const auto linear = [&](const std::string& name, std::size_t out) {
    return program.linear(x, kPrefix + name, out, {.axis = Axis::kState});
  };
  Inputs inputs{.qkv = linear("in_proj_qkv", 2 * keys + values)};
  inputs.z = linear("in_proj_z", values);
  inputs.b = linear("in_proj_b", part.value_heads);
  inputs.a = linear("in_proj_a", part.value_heads);
  return inputs;
}

}  // namespace

ValueId gated_delta_net(ProgramBuilder& program, ValueId x,
                        const GatedDeltaNet& part) {
  const std::size_t keys = part.key_heads * part.key_dim;
  const std::size_t values = part.value_heads * part.value_dim;
  const Inputs inputs = part.fused ? fused_inputs(program, x, part)
                                   : separate_inputs(program, x, part);
  const ValueId mixed =
      causal_convolution(program, inputs.qkv, kPrefix + "conv1d", part.kernel,
                         false, part.activation);
  const auto qkv = program.split(mixed, 1, {keys, keys, values},
                                 std::vector<Axis>(3, Axis::kState));
  const DeltaRuleOp op{
      .key_heads = part.key_heads,
      .key_dim = part.key_dim,
      .value_heads = part.value_heads,
      .value_dim = part.value_dim,
      .A_log = program.parameter(kPrefix + "A_log", {part.value_heads}),
      .dt_bias = program.parameter(kPrefix + "dt_bias", {part.value_heads}),
      .slot =
          program.state_slot(part.value_heads * part.key_dim * part.value_dim)};
  ValueId o = program.apply(op, {qkv[0], qkv[1], qkv[2], inputs.a, inputs.b},
                            values, Axis::kState);
  o = program.norm(o, kPrefix + "norm",
                   {.epsilon = part.epsilon, .unit = part.value_dim});
  return program.linear(program.gate(inputs.z, o, Activation::kSilu),
                        kPrefix + "out_proj", part.hidden,
                        {.axis = Axis::kHidden});
}

ValueId gated_attention(ProgramBuilder& program, ValueId x,
                        const SelfAttention& part) {
  const AttentionOp& op = part.attention;
  const auto linear = [&](const std::string& name, std::size_t out, Axis axis) {
    return program.linear(x, part.prefix + name, out,
                          {.bias = part.qkv_bias, .axis = axis});
  };
  const auto q_gate = program.split(
      linear(part.q, 2 * op.heads * op.head_dim, Axis::kQuery), op.heads,
      {op.head_dim, op.head_dim}, {Axis::kQuery, Axis::kMixed});
  const ValueId k = linear(part.k, op.kv_heads * op.head_dim, Axis::kKey);
  const ValueId v = linear(part.v, op.kv_heads * op.value_dim, Axis::kValue);
  const auto turned = [&](ValueId value, const std::string& norm) {
    return program.rope(program.norm(value, part.prefix + norm, *part.qk_norm),
                        *part.rope);
  };
  const ValueId mixed = program.attention(turned(q_gate[0], part.q_norm),
                                          turned(k, part.k_norm), v, op);
  return program.linear(program.gate(q_gate[1], mixed, Activation::kSigmoid),
                        part.prefix + part.o, part.hidden,
                        {.bias = part.o_bias, .axis = Axis::kHidden});
}

}  // namespace llmpress

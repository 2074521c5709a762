#include "compress/model/families/common_blocks.h"

#include <bit>
#include <cmath>

namespace llmpress {
namespace {

struct Heads {
  ValueId q, k, v;
};

Heads project(ProgramBuilder& program, ValueId x, const SelfAttention& part) {
  const AttentionOp& a = part.attention;
  const auto in = [&](const std::string& name, std::size_t width, Axis axis) {
    return program.linear(x, part.prefix + name, width,
                          {.bias = part.qkv_bias, .axis = axis});
  };
  const std::size_t q = a.heads * a.head_dim, k = a.kv_heads * a.head_dim,
                    v = a.kv_heads * a.value_dim;
  if (part.qkv.empty()) {
    const ValueId query = in(part.q, q, Axis::kQuery);
    const ValueId key = in(part.k, k, Axis::kKey);
    return {query, key, in(part.v, v, Axis::kValue)};
  }
  const ValueId all =
      program.linear(x, part.prefix + part.qkv, q + k + v,
                     {.bias = part.qkv_bias, .storage = part.qkv_storage});
  const std::size_t g = part.qkv_groups;
  const auto parts = program.split(all, g, {q / g, k / g, v / g},
                                   {Axis::kQuery, Axis::kKey, Axis::kValue});
  return {parts[0], parts[1], parts[2]};
}

ValueId head_norms(ProgramBuilder& program, ValueId x, const std::string& name,
                   const SelfAttention& part, Axis axis) {
  const std::size_t heads = program.width(x) / part.attention.head_dim;
  if (part.head_gains) {
    const std::size_t gains =
        program.parameter(name + ".weight", {heads, part.attention.head_dim});
    return program.apply(ScaleOp{.parameter = gains},
                         {program.plain_norm(x, *part.qk_norm)});
  }
  if (!part.norms_by_head) return program.norm(x, name, *part.qk_norm);
  const std::vector<std::size_t> widths(heads, part.attention.head_dim);
  auto parts =
      program.split(x, 1, widths, std::vector<Axis>(heads, Axis::kOther));
  for (std::size_t h = 0; h < heads; ++h) {
    parts[h] = program.norm(parts[h], numbered(name, h), *part.qk_norm);
  }
  return program.join(std::move(parts), 1, widths, axis);
}

void normalize_heads(ProgramBuilder& program, const SelfAttention& part,
                     ValueId& q, ValueId& k) {
  q = head_norms(program, q, part.prefix + part.q_norm, part, Axis::kQuery);
  k = head_norms(program, k, part.prefix + part.k_norm, part, Axis::kKey);
}

ValueId named_norm(ProgramBuilder& program, ValueId x, const std::string& name,
                   const BlockNorms& norms) {
  return name.empty() ? x : program.norm(x, name, norms.options);
}

}  // namespace

float attention_scale(std::size_t head_dim) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

std::vector<float> alibi_slopes(std::size_t heads) {
  const std::size_t lower = std::bit_floor(heads);
  std::vector<float> slopes;
  for (std::size_t h = 0; h < heads; ++h) {
    const double power =
        h < lower
            ? 8.0 * static_cast<double>(h + 1) / static_cast<double>(lower)
            : 4.0 * static_cast<double>(2 * (h - lower) + 1) /
                  static_cast<double>(lower);
    slopes.push_back(static_cast<float>(std::exp2(-power)));
  }
  return slopes;
}

AttentionOp attention_of(const Architecture& arch, std::size_t window) {
  return {.heads = arch.heads,
          .kv_heads = arch.kv_heads,
          .head_dim = arch.head_dim,
          .value_dim = arch.head_dim,
          .scale = attention_scale(arch.head_dim),
          .window = window};
}

ValueId self_attention(ProgramBuilder& program, ValueId x,
                       const SelfAttention& part) {
  auto [q, k, v] = project(program, x, part);
  if (part.qk_norm && !part.norm_after_rope) {
    normalize_heads(program, part, q, k);
  }
  if (part.clip) {
    for (ValueId* const state : {&q, &k, &v}) {
      *state = program.apply(ScaleOp{.limit = *part.clip}, {*state});
    }
  }
  if (part.rope) {
    q = program.rope(q, *part.rope);
    k = program.rope(k, *part.rope);
  }
  if (part.qk_norm && part.norm_after_rope) {
    normalize_heads(program, part, q, k);
  }
  if (part.query_scale) q = program.apply(*part.query_scale, {q});
  const ValueId mixed = program.attention(q, k, v, part.attention);
  return program.linear(
      mixed, part.prefix + part.o, part.hidden,
      {.bias = part.o_bias, .axis = Axis::kHidden, .storage = part.o_storage});
}

ValueId gated_mlp(ProgramBuilder& program, ValueId x, const GatedMlp& part) {
  const LinearOptions inner{.bias = part.bias, .axis = Axis::kFfn};
  ValueId gate, up;
  if (part.gate_up.empty()) {
    gate = program.linear(x, part.prefix + part.gate, part.ffn, inner);
    up = program.linear(x, part.prefix + part.up, part.ffn, inner);
  } else {
    const ValueId both = program.linear(x, part.prefix + part.gate_up,
                                        2 * part.ffn, {.bias = part.bias});
    const auto halves =
        program.split(both, 1, {part.ffn, part.ffn}, {Axis::kFfn, Axis::kFfn});
    gate = halves[0];
    up = halves[1];
  }
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

BlockSpec sequential_block(const BlockNorms& norms, ProgramBuilder& program,
                           const BlockPart& attention, const BlockPart& mlp) {
  const ValueId x = program.stream();
  const ValueId a =
      attention(named_norm(program, x, norms.before_attention, norms));
  const ValueId h =
      program.add(x, named_norm(program, a, norms.after_attention, norms),
                  norms.residual_factor);
  const ValueId m = mlp(named_norm(program, h, norms.before_mlp, norms));
  return program.finish(
      program.add(h, named_norm(program, m, norms.after_mlp, norms),
                  norms.residual_factor));
}

BlockSpec parallel_block(const BlockNorms& norms, ProgramBuilder& program,
                         const BlockPart& attention, const BlockPart& mlp) {
  const ValueId x = program.stream();
  const ValueId z = named_norm(program, x, norms.before_attention, norms);
  const ValueId a = attention(z);
  const ValueId h = program.add(x, a, norms.residual_factor);
  const ValueId m = mlp(norms.before_mlp.empty()
                            ? z
                            : program.norm(x, norms.before_mlp, norms.options));
  return program.finish(program.add(h, m, norms.residual_factor));
}

}  // namespace llmpress

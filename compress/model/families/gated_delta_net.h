// The parts of Qwen3-Next's and Qwen3.5's block programs: Gated DeltaNet
// (arXiv:2412.06464) and attention with a gate on its output
// (arXiv:2505.06708).
#pragma once

#include <cstddef>

#include "compress/model/families/common_blocks.h"
#include "compress/model/program_builder.h"

namespace llmpress {

//   q, k, v = split(conv(q | k | v));  o = delta_rule(q, k, v, a, b)
//   out_proj(norm(o) * silu(z))
// with q, k, v, z, a, b of Linears of x.
struct GatedDeltaNet {
  std::size_t hidden = 0, kernel = 4;
  std::size_t key_heads = 1, key_dim = 1, value_heads = 1, value_dim = 1;
  Activation activation = Activation::kSilu;  // of the convolution
  float epsilon = 1e-6f;
  // One Linear in_proj_qkvz and one in_proj_ba, their rows grouped by key head
  // (Qwen3-Next), or in_proj_qkv, in_proj_z, in_proj_b and in_proj_a.
  bool fused = false;
};
ValueId gated_delta_net(ProgramBuilder& program, ValueId x,
                        const GatedDeltaNet& part);

// o_proj(sigmoid(gate) * attention(...)); q_proj gives each head's query, then
// its gate.
ValueId gated_attention(ProgramBuilder& program, ValueId x,
                        const SelfAttention& part);

}  // namespace llmpress

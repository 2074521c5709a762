// Mamba-2's state space duality (arXiv:2405.21060), token by token.
#pragma once

#include <cstddef>
#include <limits>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, heads * head_dim], B, C [tokens, groups * state],
// dt [tokens, heads]; out: y as x. For each head h of group h / (heads /
// groups), with d = clamp(softplus(dt + dt_bias), dt_min, dt_max):
//   S <- exp(-exp(A_log) d) S + d x B^T      S [head_dim, state]
//   y  = S C + D x
struct StateSpaceOp {
  std::size_t heads = 1, head_dim = 1, groups = 1, state = 1;
  std::size_t A_log = 0, D = 0, dt_bias = 0;  // parameters [heads]
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();
  std::size_t slot = 0;  // [heads, head_dim, state]

  bool operator==(const StateSpaceOp&) const = default;
};

void run(const StateSpaceOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const StateSpaceOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

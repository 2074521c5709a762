// The gated delta rule (Gated DeltaNet, arXiv:2412.06464), token by token.
#pragma once

#include <cstddef>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: q, k [tokens, key_heads * key_dim], v [tokens, value_heads * value_dim],
// a, b [tokens, value_heads]; out: [tokens, value_heads * value_dim]. Each
// query and key is normed to length 1 (epsilon 1e-6 under the root), the query
// divided by sqrt(key_dim); value head h reads key head h / (value_heads /
// key_heads). With g = -exp(A_log) softplus(a + dt_bias), beta = sigmoid(b):
//   S <- exp(g) S;   S <- S + k (beta (v - S^T k))^T;   o = S^T q
// S [key_dim, value_dim].
struct DeltaRuleOp {
  std::size_t key_heads = 1, key_dim = 1, value_heads = 1, value_dim = 1;
  std::size_t A_log = 0, dt_bias = 0;  // parameters [value_heads]
  std::size_t slot = 0;                // [value_heads, key_dim, value_dim]

  bool operator==(const DeltaRuleOp&) const = default;
};

void run(const DeltaRuleOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const DeltaRuleOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

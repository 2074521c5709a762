// Linear attention whose past fades at a rate of each head: lightning attention
// (arXiv:2401.04658, Eq. 4), token by token.
#pragma once

#include <cstddef>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: q, k, v [tokens, heads * head_dim]; out: o, the same shape:
//   S <- exp(-rate) S + k v^T;   o = S^T q      S [head_dim, head_dim]
struct LinearAttentionOp {
  std::size_t heads = 1, head_dim = 1;
  std::size_t rate = 0;  // parameter [heads]
  std::size_t slot = 0;  // [heads, head_dim, head_dim]

  bool operator==(const LinearAttentionOp&) const = default;
};

void run(const LinearAttentionOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const LinearAttentionOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

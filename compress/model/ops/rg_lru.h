// The real-gated linear recurrent unit of Griffin (arXiv:2402.19427, section
// 2.4).
#pragma once

#include <cstddef>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, width]; out: h, the same shape. With the gates
// i = sigmoid(x W_i + b_i), r = sigmoid(x W_r + b_r), W block-diagonal of
// `blocks` blocks, and a = exp(-8 softplus(decay) r):
//   h <- a h + sqrt(1 - a^2) (i x)
// and h = i x at a sequence's first token.
struct RgLruOp {
  std::size_t width = 1, blocks = 1;
  // Parameters [blocks, in, out] and [blocks, out]; in = out = width / blocks.
  std::size_t input_weight = 0, input_bias = 0;
  std::size_t recurrent_weight = 0, recurrent_bias = 0;
  std::size_t decay = 0;  // parameter [width]
  std::size_t slot = 0;   // [width]

  bool operator==(const RgLruOp&) const = default;
};

void run(const RgLruOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const RgLruOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

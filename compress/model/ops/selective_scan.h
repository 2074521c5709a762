// Mamba's selective scan (arXiv:2312.00752, algorithm 2), token by token.
#pragma once

#include <cstddef>

#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x, dt [tokens, channels], B, C [tokens, state]; out: y as x. For each
// channel, with d = softplus(dt):
//   s <- exp(-exp(A_log) d) s + d x B      s [state]
//   y  = s . C + D x
struct SelectiveScanOp {
  std::size_t channels = 1, state = 1;
  std::size_t A_log = 0;  // parameter [channels, state]
  std::size_t D = 0;      // parameter [channels]
  std::size_t slot = 0;   // [channels, state]

  bool operator==(const SelectiveScanOp&) const = default;
};

void run(const SelectiveScanOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const SelectiveScanOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

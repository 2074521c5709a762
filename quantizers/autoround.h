// AutoRound: rounding learned by signed gradient descent (SignRound, Cheng et
// al. 2023, arXiv:2309.05516). The parameters and their gradients are those of
// signed_rounding.h. Inside a block all Linears learn together
// (compress/pipeline/run/block_rounding.h); here is a Linear by itself, an
// output head, which learns to keep its own output:
//
//   L = tr((W_q - W) S (W_q - W)^T),   dL/dW_q = 2 (W_q - W) S,   S = E[x x^T]
//
// Steps fall linearly from the learning rate to 0; the best iterate is kept, so
// the result is never worse than rounding to nearest. Cost: 2 out in^2 a step.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

QuantizerMethod autoround_method();

}  // namespace llmpress

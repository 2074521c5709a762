// AutoRound: rounding learned by signed gradient descent (SignRound, Cheng et
// al. 2023, arXiv:2309.05516). The parameters and their gradients are those of
// signed_rounding.h; steps fall linearly from the learning rate to 0. Inside a
// block all Linears learn together (block_weight.h).
#pragma once

#include "quantizers/method.h"

namespace llmpress {

QuantizerMethod autoround_method();

}  // namespace llmpress

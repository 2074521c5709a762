// OmniQuant (Shao et al. 2023, arXiv:2308.13137): weights round to nearest, but
// on ranges that are learned, and behind norms whose channels are scaled.
//
// Learnable weight clipping (Eq. 2): of every group
//
//   lo = sigmoid(gamma) min(W, 0),   hi = sigmoid(beta) max(W, 0)
//   s = (hi - lo) / N,   z = round(-lo / s),   N = 2^bits - 1
//   W_q = s (clamp(round(W / s) + z, 0, N) - z)
//
// (symmetric: s = 2 max(hi, -lo) / N, z = 2^(bits-1)); both start at 4, which
// keeps 0.98 of the range, or at the share that `range: mse` finds. With D = dL/dW_q, m = 1 where the code is strictly
// within the grid and rounding passed straight through:
//
//   dL/ds = sum D (q - z - m W / s - (1 - m) lo / s)
//   dL/dlo = sum D (1 - m) - dL/ds / N,   dL/dhi = dL/ds / N
//
// and dL/dW = D m, with dL/dlo, dL/dhi through the smallest and the largest
// weight of the group. Learnable equivalent transformations (Eq. 3), scales
// between a norm and the Linears behind it, are the block's
// (compress/pipeline/run/block_rounding.h). All learn by AdamW.
//
// Differs from the authors' code: learning rates fall linearly to 0; no shifts,
// which norms without biases cannot take, and no scales between Linears.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

QuantizerMethod omniquant_method();

}  // namespace llmpress

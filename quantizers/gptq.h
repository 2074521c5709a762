// GPTQ: Accurate Post-Training Quantization, Frantar et al. 2022,
// arXiv:2210.17323, Algorithm 1. Columns are rounded one after another; what
// rounding column p did to the output is made good by the columns that follow:
//
//   H = E[x x^T] + damping,  H^-1 = U^T U (U upper)
//   e = (w_p - q_p) / U[p, p],   w_j -= e U[p, j]  for j > p
//
// which minimizes tr((W - W') H (W - W')^T) greedily. Columns are handled in
// lazy batches: inside a batch by rows, after it the rest of W at once by a
// matrix product. Batches are aligned with groups, so a group's grid is
// fitted to weights that carry every update so far; config.stale_grid brings
// back the authors' fixed batches and their grids without the batch's own
// updates.
//
// Act-order solves columns of large H first; with static groups the stored
// order stays trivial, without them g_idx is stored. Group-aware order sorts
// within groups and among them only. Asymmetric calibration (GPTAQ,
// arXiv:2504.02692, Algorithm 1) pulls the later columns towards the output of
// the uncompressed model: w_j += w_p P[p, j], P = alpha triu(C U^T, 1) U,
// C = E[(x_full - x) x^T].
//
// Cost: in^3 flops for the factor, 2 out in^2 for the solve; 3 in^2 + 3 out in
// floats. The result is the same at any thread count.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

// Needs stats->second_moment. Throws Error(kInvalidArgument) for a scheme it
// cannot use, Error(kNumeric) if H cannot be factored under the damping policy,
// every input was 0 or the weights diverge.
QuantizeResult quantize_gptq(const QuantizeRequest& request);

QuantizerMethod gptq_method();

}  // namespace llmpress

// The L2 norm of all gradients, and the factor that clips it.
#pragma once

#include <span>

#include "compress/core/parallel.h"

namespace llmpress {

// sqrt(sum g^2) over all elements of all spans, in double: no square of a float
// overflows, so the result is not finite exactly where an element is not (a
// step must then be left out). Chunks have a fixed size and are summed in
// order.
double gradient_norm(std::span<const std::span<const float>> gradients,
                     ThreadPool& pool);

// min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ scales
// gradients; optimizers take it as gradient_factor. max_norm <= 0: no clipping.
float clip_factor(double norm, double max_norm);

}  // namespace llmpress

// What a stage that trains will take, from the shape of its model.
#pragma once

#include <cstddef>

#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

// Weights, gradients and the optimizer's states in float32 or 8 bits; the
// teacher, if any, as a second model of this shape; what the backward pass
// needs of one batch: every value of every block, or of one block and the
// streams between them; two chunks of logits.
std::size_t training_peak_bytes(const Architecture& arch, const Stage& stage);

// Multiplications and additions of all steps: 6 a weight and token, 8 where
// blocks run again, 2 more for a teacher. 0 where the text decides on the steps.
double training_flops(const Architecture& arch, const Stage& stage);

}  // namespace llmpress

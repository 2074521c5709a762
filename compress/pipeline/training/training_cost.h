// What a stage that trains will take, from the shape of its model.
#pragma once

#include <cstddef>

#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

// What a stage trains: numbers as they are, or Linears that are packed already,
// whose codes stay.
enum class TrainedForm { kDense, kPacked };

// Weights, gradients and the optimizer's states in float32 or 8 bits, and the
// weights on their grid where training is aware of it; the teacher, if any, as a
// second model of this shape; what the backward pass needs of one batch: every
// value of every block, or of one block and the streams between them; two chunks
// of logits. Packed Linears: as they are and decoded, and one Linear's gradient.
// `grid_end_weights`: those of embedding and head that learn on a grid.
std::size_t training_peak_bytes(const Architecture& arch, const Stage& stage,
                                TrainedForm form,
                                std::size_t grid_end_weights = 0);

// Multiplications and additions of all steps: 6 a weight and token, 8 where
// blocks run again, 2 more for a teacher. 0 where the text decides on the steps.
double training_flops(const Architecture& arch, const Stage& stage);

}  // namespace llmpress

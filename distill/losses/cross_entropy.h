// Cross-entropy of the next token, with label smoothing.
//
// For a row z [V] with target t, p = softmax(z) and smoothing e:
//   L      = -(1 - e) log p_t - e / V sum_i log p_i
//   dL/dz  = p - (1 - e) onehot(t) - e / V
// (Szegedy et al., arXiv:1512.00567, section 7; the definition of
// torch.nn.functional.cross_entropy). Cost: two exponentials an element; each
// of Z and G is read from memory once.
#pragma once

#include <cstdint>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

// Returns sum_r row_weights[r] L_r and adds row_weights[r] dL_r/dZ to G. Z and
// G [rows, vocabulary], targets and row_weights [rows]. A row with a negative
// target or weight 0 is left out. Throws Error(kInvalidInput) for a target past
// the vocabulary, kInvalidArgument unless 0 <= label_smoothing < 1.
double cross_entropy_loss(ConstMatrixView Z,
                          std::span<const std::int32_t> targets,
                          std::span<const float> row_weights,
                          float label_smoothing, MatrixView<float> G,
                          ThreadPool& pool, Isa isa = best_isa());

}  // namespace llmpress

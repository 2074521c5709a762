// Normalization of rows. Sums run in double, in the order of the columns, so a
// row's result depends on that row alone.
//   rms    y = x / sqrt(mean(x^2) + epsilon) * gain        arXiv:1910.07467
//   layer  y = (x - mean) / sqrt(var + epsilon) * gain + bias  arXiv:1607.06450
// with var = mean((x - mean)^2).
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// X, Y [rows, cols]; Y may be X. gain [cols].
void rms_norm(ConstMatrixView X, std::span<const float> gain, float epsilon,
              MatrixView<float> Y, ThreadPool& pool);

// bias [cols] or empty.
void layer_norm(ConstMatrixView X, std::span<const float> gain,
                std::span<const float> bias, float epsilon, MatrixView<float> Y,
                ThreadPool& pool);

}  // namespace llmpress

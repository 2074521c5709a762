// norms.h in reverse, over units of x. With z = (x - mean) * scale the
// normalized unit (mean 0 for rms) and g = dy * gain:
//   dx = scale (g - mean(g) - z mean(g z))    (rms: without mean(g))
//   d gain = sum_rows dy z,  d bias = sum_rows dy
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct NormPass {
  ConstMatrixView X{};            // [units, width] as it went in
  std::span<const float> gain{};  // [k * width]: of k units that take turns
  float epsilon = 0;
  bool centred = false;  // layer_norm, else rms_norm
};

// Where the gradients are added; empty: not wanted.
struct NormSums {
  MatrixView<float> dX{};
  std::span<float> gain{}, bias{};  // of NormPass::gain's size
};

// dY [units, width]. The same bits at any number of threads.
void norm_backward(const NormPass& pass, ConstMatrixView dY,
                   const NormSums& sums, ThreadPool& pool);

}  // namespace llmpress

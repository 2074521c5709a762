// The weight change of one LoRA adapter on one Linear (arXiv:2106.09685):
//   W' = W + scaling B A,   A [r, in], B [out, r]
// in float32 from end to end. scaling = alpha / r, or alpha / sqrt(r) for
// rsLoRA (arXiv:2312.03732). DoRA (arXiv:2402.09353, Eq. 5) then rescales every
// output row to a learned norm:
//   W' = (m / |W + scaling B A|_2 per row) (W + scaling B A)
#pragma once

#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct LoraDelta {
  MatrixF A{};  // [r, in]
  MatrixF B{};  // [out, r]
  double scaling = 1;
  std::vector<float> magnitude{};  // [out], DoRA; otherwise empty
};

// Merges into W [out, in]. `weight` scales the whole adapter; a DoRA adapter
// with a weight other than 1 moves W that part of the way to its merged form.
// Throws Error(kInvalidArgument) if shapes do not fit, kNumeric if a result is
// not finite.
void merge_in_place(const LoraDelta& delta, double weight, MatrixView<float> W,
                    ThreadPool& pool);

}  // namespace llmpress

// The weight change of one LoRA adapter on one Linear (arXiv:2106.09685):
//   W' = W + scaling B A,   A [r, in], B [out, r]
// in float32 from end to end. scaling = alpha / r, or alpha / sqrt(r) for
// rsLoRA (arXiv:2312.03732). DoRA (arXiv:2402.09353, Eq. 5) then rescales every
// output row to a learned norm:
//   W' = (m / |W + scaling B A|_2 per row) (W + scaling B A)
// An adapter of the bias changes b by scaling * bias.
//
// A weight that is stored transposed, W [in, out] (an embedding [vocab, dim],
// GPT-2's Conv1D), takes the transposed change; its rows above are then its
// columns.
//
// Cost: out * in * r multiply-adds; DoRA takes one more [out, in].
#pragma once

#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct LoraDelta {
  MatrixF A{};  // [r, in]
  MatrixF B{};  // [out, r]
  double scaling = 1;
  std::vector<float> magnitude{};  // [out], DoRA; otherwise empty
  std::vector<float> bias{};       // [out] or empty
  bool transposed = false;         // W is stored [in, out]
};

// Merges into W [out, in], or [in, out] if transposed. `weight` scales the
// whole adapter; a DoRA adapter with a weight other than 1 moves W that part of
// the way to its merged form. Throws Error(kInvalidArgument) if shapes do not
// fit, kNumeric if a result is not finite.
void merge_in_place(const LoraDelta& delta, double weight, MatrixView<float> W,
                    ThreadPool& pool);

// b [out] += weight scaling bias; nothing if the adapter has none.
void merge_bias_in_place(const LoraDelta& delta, double weight,
                         std::span<float> b);

// Takes out what merge_in_place put in, up to one rounding of W each way.
// Throws Error(kUnsupported) for DoRA: the norms of the original rows, which it
// replaced, are not in the adapter.
void unmerge_in_place(const LoraDelta& delta, double weight,
                      MatrixView<float> W, ThreadPool& pool);

// What merge_in_place with weight 1 adds to W, in the layout of W.
MatrixF change_of(const LoraDelta& delta, ConstMatrixView W, ThreadPool& pool);

// DoRA's m / |W + scaling B A|_2 for each output [out]; 1 for a zero row, which
// has no direction to scale. Takes `magnitude`, which must be there.
std::vector<float> dora_factors(const LoraDelta& delta, ConstMatrixView W,
                                ThreadPool& pool);

}  // namespace llmpress

// Rotations that spread outliers over all channels (QuaRot, Ashkboos et al.
// 2024, arXiv:2404.00456). R x = H (signs o x) in consecutive blocks, H the
// normalized Hadamard matrix of the block, is orthogonal, so it can be put
// between the producers and the consumers of a vector without changing the
// model:
//
//   consumer  W x  = (W R^T) (R x)      rotate_input
//   producer  R (W x + b) = (R W) x + R b    rotate_output, rotate_vectors
//   embedding rows are vectors           rotate_vectors
//
// For the residual stream the gain of each norm must be folded into the Linears
// that read it first (fold_gain), so that the norm commutes with R; LayerNorm
// also needs its mean taken out of what writes the stream (center_output).
// Without signs the rotation of an input is the transform that
// LinearWeights::input_hadamard runs online. Sizes: hadamard.h.
// Cost: n log n additions a vector.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct Rotation {
  std::size_t block = 0;       // divides the length of the vectors
  std::vector<float> signs{};  // +-1 for each element, or empty: all +1
};

// Random signs over all of `size`, in the largest blocks that there are.
Rotation random_rotation(std::size_t size, std::uint64_t seed);

// Each row x of X [n, size] becomes R x.
void rotate_vectors_in_place(MatrixView<float> X, const Rotation& rotation,
                             ThreadPool& pool);
// Each row becomes R^T x.
void unrotate_vectors_in_place(MatrixView<float> X, const Rotation& rotation,
                               ThreadPool& pool);

// W [out, in] becomes W R^T: reads rotated inputs.
void rotate_input_in_place(MatrixView<float> W, const Rotation& rotation,
                           ThreadPool& pool);
// W [out, in] becomes R W: writes rotated outputs.
void rotate_output_in_place(MatrixView<float> W, const Rotation& rotation,
                            ThreadPool& pool);

// W diag(gain), after which the norm's gain is 1. With LayerNorm, whose shift b
// becomes W b, add shifted_bias first.
void fold_gain_in_place(MatrixView<float> W, std::span<const float> gain);
// bias + W shift. `bias` [out] or empty.
std::vector<float> shifted_bias(ConstMatrixView W, std::span<const float> shift,
                                std::span<const float> bias);

// Takes the mean over outputs out of every column of W [out, in] (and out of
// the bias, a matrix of one column), so that LayerNorm's centering does
// nothing.
void center_output_in_place(MatrixView<float> W);

}  // namespace llmpress

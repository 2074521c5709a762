// The non-linear functions between the Linears of an MLP.
//   silu       x / (1 + exp(-x))                              arXiv:1702.03118
//   gelu_tanh  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))  arXiv:1606.08415
//   gelu_erf   x/2 (1 + erf(x / sqrt(2)))
//   relu       max(x, 0)
//   relu2      max(x, 0)^2                                    arXiv:2109.08668
//   sigmoid    1 / (1 + exp(-x))
//   softplus   ln(1 + exp(x))
//   tanh
// The vector versions err by at most 4e-7 * max(1, |x|) against the exact
// value.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/kernels/cpu.h"

namespace llmpress {

enum class Activation {
  kSilu,
  kGeluTanh,
  kGeluErf,
  kRelu,
  kRelu2,
  kSigmoid,
  kSoftplus,
  kTanh,
};

void activate_in_place(Activation activation, MatrixView<float> X,
                       ThreadPool& pool, Isa isa = best_isa());

// By the calling thread.
void activate_row_in_place(Activation activation, std::span<float> x,
                           Isa isa = best_isa());

// out = activation(gate) * up, element by element; out may be gate or up.
void gated_activation(Activation activation, ConstMatrixView gate,
                      ConstMatrixView up, MatrixView<float> out,
                      ThreadPool& pool, Isa isa = best_isa());

}  // namespace llmpress

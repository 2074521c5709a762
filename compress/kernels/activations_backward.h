// activations.h in reverse: dL/dx = dL/dy f'(x). The slope of relu at 0 is 0.
// The vector versions of f' err by at most 1e-6.
#pragma once

#include <span>

#include "compress/core/matrix.h"
#include "compress/kernels/activations.h"

namespace llmpress {

// y_i = f'(x_i); y may be x.
void activation_slopes(Activation activation, std::span<const float> x,
                       std::span<float> y, Isa isa = best_isa());

// dX += dY f'(X).
void activation_backward(Activation activation, ConstMatrixView X,
                         ConstMatrixView dY, MatrixView<float> dX,
                         ThreadPool& pool, Isa isa = best_isa());

// Where a gradient goes: added to what is there, or over it.
struct GradientTarget {
  MatrixView<float> view{};  // empty: not wanted
  bool overwrite = false;
};

// Of out = f(gate) * up: d_gate (+)= dY up f'(gate), d_up (+)= dY f(gate).
void gated_activation_backward(Activation activation, ConstMatrixView gate,
                               ConstMatrixView up, ConstMatrixView dY,
                               const GradientTarget& d_gate,
                               const GradientTarget& d_up, ThreadPool& pool,
                               Isa isa = best_isa());

}  // namespace llmpress

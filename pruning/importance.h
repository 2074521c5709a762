// How much a removable unit of a decoder matters: an FFN channel, a group of
// heads, a channel of the residual stream. Three ways to tell:
//
//   weights      the L2 norm of everything that goes with the unit
//   activations  mean |a| over tokens; of a head the mean L2 norm of its output
//                (Minitron, arXiv:2407.14679, section 2.2)
//   gradients    |sum of w * dL/dw| over what goes: the first-order change of
//                the loss (LLM-Pruner, arXiv:2305.11627, Eq. 3)
//
// A unit's weights are rows of some matrices and columns of others. Of a gated
// FFN, unit c is row c of gate and up and column c of down; of attention with
// head_dim h and g query heads a key/value head, unit k is rows of width g*h of
// q, width h of k and v, and columns of width g*h of o.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

enum class UnitAxis { kRows, kColumns };

// One matrix's share: unit u owns `width` consecutive rows or columns, from
// u * width on.
struct UnitSlice {
  ConstMatrixView W{};
  UnitAxis axis = UnitAxis::kRows;
  std::size_t width = 1;
  ConstMatrixView gradient{};  // of W's shape; for gradient_importance
};

// [units]. Throws Error(kInvalidArgument) if a slice does not hold `units`
// units.
std::vector<double> weight_importance(std::span<const UnitSlice> slices,
                                      std::size_t units);
std::vector<double> gradient_importance(std::span<const UnitSlice> slices,
                                        std::size_t units);

// From E|a_i| [units * width]: the mean over each unit's channels.
std::vector<double> activation_importance(std::span<const float> abs_mean,
                                          std::size_t width = 1);

// From sampled activations X [tokens, units * width]: the mean over tokens of
// the L2 norm of each unit's part.
std::vector<double> activation_norm_importance(ConstMatrixView X,
                                               std::size_t width);

// Several views of the same units (a residual channel at every norm) as one:
// each scaled to a mean of 1, then averaged.
std::vector<double> combined_importance(
    std::span<const std::vector<double>> parts);

}  // namespace llmpress

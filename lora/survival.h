// How much of a fine-tune outlives requantization. A change D that is small
// against the steps of a grid rounds away: with C = Q(W + D) - Q(W),
//
//   kept   |C|_F / |D|_F               1: of its own size
//   cosine <C, D> / (|C|_F |D|_F)      1: of its own direction
//
// A method that calibrates may give `kept` above 1 with a low cosine: both
// matter. Sums are in float64.
#pragma once

#include "compress/core/matrix.h"

namespace llmpress {

struct Survival {
  double change_norm = 0;     // |D|_F
  double surviving_norm = 0;  // |C|_F
  double kept = 1;            // 1 if D = 0 and C = 0; infinite if only D = 0
  double cosine = 1;          // 0 if only one of both is 0
};

// change D, quantized_base Q(W), quantized_merged Q(W + D): [out, in] each.
// Throws Error(kInvalidArgument) if the shapes differ.
Survival measure_survival(ConstMatrixView change,
                          ConstMatrixView quantized_base,
                          ConstMatrixView quantized_merged);

}  // namespace llmpress

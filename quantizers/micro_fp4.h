// Micro-scaled FP4 weights (E2M1: 0 .5 1 1.5 2 3 4 6), scales along the input.
//
//   MXFP4  groups of 32, a power of two (OCP Microscaling v1.0):
//          e = floor(log2 a) - 2, a = max|group|, one more where the mantissa
//          of a is 1.75 or above (compressed-tensors; it would saturate at 6)
//   NVFP4  groups of 16, an E4M3 scale (a / 6) g, clamped to 448 before the
//   cast,
//          and g = 448 * 6 / max|W| for the whole tensor
//
// RangeSearch::kMse tries neighbouring scales of each group and keeps the one
// of the smallest squared error. A group of zeros has zero codes. Cost: one
// pass.
#pragma once

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

// scheme.type is kMxfp4 or kNvfp4 (assert).
MicroFp4Weight quantize_micro_fp4(ConstMatrixView W, const WeightScheme& scheme,
                                  ThreadPool& pool);

}  // namespace llmpress

// FP8 weights (Micikevicius et al. 2022, arXiv:2209.05433) with multiplying
// scales over blocks:
//   s = max|W block| / max_of_format (448 for E4M3, 57344 for E5M2), W' = s *
//   fp8(W / s)
// Clamped before the cast, so that no finite weight becomes NaN. A block of
// zeros has s = 1. Block: block_rows x block_cols if given, else 1 x group_size
// (-1: a row, 0: the whole tensor). RangeSearch::kMse tries 20 shrunk maxima.
// Cost: one pass (two with kMse per candidate).
#pragma once

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

// scheme.type is kFp8E4M3 or kFp8E5M2 (assert).
Fp8Weight quantize_fp8(ConstMatrixView W, const WeightScheme& scheme,
                       ThreadPool& pool);

}  // namespace llmpress

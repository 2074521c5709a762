// 4-bit table weights as bitsandbytes stores them: NF4 (QLoRA, Dettmers et al.
// 2023, arXiv:2305.14314, section 3) and FP4. Per block of the flattened
// row-major weight
//
//   a = max|W block|,  code = nearest table value to W / a, ties to the lower
//
// Double quantization codes (a - mean(a)) in blocks of 256 on the signed
// dynamic map. Differs from bitsandbytes: the codes are then fitted to the a
// that a reader decodes, not to the exact one, which is never worse for a given
// a. Cost: one pass.
#pragma once

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "quantizers/method.h"

namespace llmpress {

// scheme.type is kNf4 or kFp4 (assert). The block is scheme.group_size weights;
// -1: a row, 0: the whole tensor.
Table4Weight quantize_table4(ConstMatrixView W, const WeightScheme& scheme,
                             ThreadPool& pool);

// Round to nearest for weights of type nf4 or fp4.
QuantizerMethod nf4_method();

}  // namespace llmpress

#include <algorithm>
#include <limits>

#include "compress/kernels/row_kernels.h"
#include "compress/kernels/simd_avx2.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX2
namespace llmpress {
namespace {

#include "compress/kernels/simd_math_inl.h"
// The second builds on the first.
#include "compress/kernels/row_kernels_inl.h"

}  // namespace

const RowKernels& row_kernels_avx2() {
  static const RowKernels kernels{
      .max = &max_of<Avx2>,
      .sum_exp = &sum_exp<Avx2>,
      .scaled_exp = &scaled_exp<Avx2>,
      .divergence = &divergence<Avx2>,
      .activate = &activate<Avx2>,
      .slopes = &slopes<Avx2>,
      .round_codes = &round_codes<Avx2>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

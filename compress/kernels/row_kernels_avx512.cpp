#include <algorithm>
#include <limits>

#include "compress/kernels/row_kernels.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

#include "compress/kernels/simd_math_inl.h"
// The second builds on the first.
#include "compress/kernels/row_kernels_inl.h"

}  // namespace

const RowKernels& row_kernels_avx512() {
  static const RowKernels kernels{
      .max = &max_of<Avx512>,
      .sum_exp = &sum_exp<Avx512>,
      .scaled_exp = &scaled_exp<Avx512>,
      .divergence = &divergence<Avx512>,
      .activate = &activate<Avx512>,
      .slopes = &slopes<Avx512>,
      .round_codes = &round_codes<Avx512>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

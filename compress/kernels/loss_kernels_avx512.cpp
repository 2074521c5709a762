#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/kernels/loss_kernels.h"
#include "compress/kernels/row_kernels.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

#include "compress/kernels/simd_math_inl.h"
// Needs the one above.
#include "compress/kernels/row_kernels_inl.h"
// Needs the two above.
#include "compress/kernels/loss_kernels_inl.h"

}  // namespace

const LossKernels& loss_kernels_avx512() {
  static const LossKernels kernels{
      .max = &max_of<Avx512>,
      .exp_and_sum = &exp_and_sum<Avx512>,
      .divergence = &divergence_of<Avx512>,
      .mixture = &mixture<Avx512>,
      .add_scaled = &add_scaled<Avx512>,
      .add_difference = &add_difference<Avx512>,
      .add_product = &add_product<Avx512>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

#include "compress/kernels/dense_kernels.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

using S = Avx512;

#include "compress/kernels/simd_loops_inl.h"
// The second builds on the first.
#include "compress/kernels/dense_kernels_inl.h"

}  // namespace

const DenseKernels& dense_kernels_avx512() { return kDenseKernels; }

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

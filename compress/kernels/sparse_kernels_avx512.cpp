#include <algorithm>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "compress/kernels/simd_avx512.h"
#include "compress/kernels/sparse_kernels.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

constexpr std::size_t kPrefetchBytes = 2048;

#include "compress/kernels/simd_loops_inl.h"
// Each builds on the ones before.
#include "compress/kernels/outer_product_inl.h"
#include "compress/kernels/sparse_by_mask_inl.h"
#include "compress/kernels/sparse_in_pairs_inl.h"
#include "compress/kernels/sparse_kernels_inl.h"

}  // namespace

const SparseKernels& sparse_kernels_avx512() {
  static const SparseKernels kernels{
      .multiply_few = &multiply_sparse_few<Avx512>,
      .expand = &expand_sparse<Avx512>,
      .add_product = &add_product<Avx512>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

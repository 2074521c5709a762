#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>
#include <vector>

#include "compress/kernels/rounded_kernels.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

// See panel_kernels_avx512.cpp.
constexpr std::size_t kPrefetchBytes = 2048;

#include "compress/kernels/simd_loops_inl.h"
// Each builds on the ones before.
#include "compress/kernels/panel_common_inl.h"
// clang-format would sort it first.
#include "compress/kernels/rounded_kernels_inl.h"
// Needs the ones above.
#include "compress/kernels/rounded_tiles_inl.h"

}  // namespace

const RoundedKernels& rounded_kernels_avx512() {
  static const RoundedKernels kernels{
      .takes_words = &takes_words<Avx512>,
      .next_tile = &next_rounded_tile<Avx512>,
      .next_word_tile = &next_word_tile<Avx512>,
      .round_row = &round_row<Avx512>,
      .multiply_few = &multiply_few_rounded<Avx512>,
      .multiply_tiles = &multiply_tiles_rounded<Avx512>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

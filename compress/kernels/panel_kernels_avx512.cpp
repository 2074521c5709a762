#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "compress/kernels/panel_kernels.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

// How far ahead of the stream of codes to ask for it: a page boundary stops the
// processor's own prefetching.
constexpr std::size_t kPrefetchBytes = 2048;

#include "compress/kernels/simd_loops_inl.h"
// Each builds on the ones before.
#include "compress/kernels/panel_common_inl.h"
// clang-format would sort it first.
#include "compress/kernels/panel_decode_inl.h"
#include "compress/kernels/panel_few_inl.h"
#include "compress/kernels/panel_kernels_inl.h"
// Needs the ones above.
#include "compress/kernels/panel_kernels_int_inl.h"

}  // namespace

const PanelKernels& panel_kernels_avx512() {
  static const PanelKernels kernels{
      .next_tile = &next_panel_tile<Avx512>,
      .multiply_few = &multiply_few<Avx512>,
      .multiply_few_int = &multiply_few_int<Avx512>,
      .multiply_tiles = &multiply_tiles<Avx512>,
      .multiply_tiles_int = &multiply_tiles_int<Avx512>,
  };
  return kernels;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

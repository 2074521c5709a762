#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "compress/kernels/aligned_buffer.h"
#include "compress/kernels/attention_kernels.h"
#include "compress/kernels/simd_avx2.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX2
namespace llmpress {
namespace {

// A multiple of the register tile's 6 rows.
constexpr std::size_t kKeysPerTile = 96;

#include "compress/kernels/simd_loops_inl.h"
#include "compress/kernels/simd_math_inl.h"
// Each builds on the ones before.
#include "compress/kernels/outer_product_inl.h"
// clang-format would sort it first.
#include "compress/kernels/attention_kernels_inl.h"

}  // namespace

void attend_avx2(ConstMatrixView Q, const AttentionConfig& config,
                 const AttentionTask& task, MatrixView<float> O) {
  attend<Avx2>(Q, config, task, O);
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

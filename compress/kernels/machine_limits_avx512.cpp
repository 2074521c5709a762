#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "compress/kernels/machine_limits.h"
#include "compress/kernels/simd_avx512.h"

#if LLMPRESS_X86
LLMPRESS_BEGIN_AVX512
namespace llmpress {
namespace {

#include "compress/kernels/machine_limits_inl.h"

}  // namespace

const LimitLoops& limit_loops_avx512() {
  static constexpr LimitLoops kLoops = loops_of<Avx512>();
  return kLoops;
}

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

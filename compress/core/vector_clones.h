// Lets the compiler build a plain loop once for each instruction set and pick
// one at load time. Contraction of a multiply and an add into one rounding is
// off in the whole project, so every clone gives the same bits.
#pragma once

// Clang's clones and ThreadSanitizer's start-up do not get along with ifuncs of
// internal linkage: there the baseline version runs.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__)
#define LLMPRESS_VECTOR_CLONES \
  __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define LLMPRESS_VECTOR_CLONES
#endif

#include <cstdint>
#include <cstring>

namespace llmpress {

// Eight numbers at once, where the compiler does not see that a loop may (GCC's
// and clang's vector extension, split where registers are narrower).
inline constexpr std::size_t kFloatLanes = 8;
using FloatLanes = float __attribute__((vector_size(32)));
using IntLanes = std::int32_t __attribute__((vector_size(32)));
using OctetLanes = std::uint8_t __attribute__((vector_size(8)));

}  // namespace llmpress

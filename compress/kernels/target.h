// Compiles a stretch of code for a wider instruction set than the rest of the
// program, between LLMPRESS_BEGIN_AVX2 or _AVX512 and LLMPRESS_END_TARGET, so
// that no file needs compiler options of its own. All #includes stand outside
// such a stretch: an inline function of a library must not be compiled in it.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define LLMPRESS_X86 1
#else
#define LLMPRESS_X86 0
#endif

// A pragma's text is one literal.
// clang-format off
#if LLMPRESS_X86 && defined(__clang__)
#define LLMPRESS_BEGIN_AVX2 \
  _Pragma("clang attribute push(__attribute__((target(\"avx,avx2,fma,f16c,popcnt\"))), apply_to = function)")
#define LLMPRESS_BEGIN_AVX512 \
  _Pragma("clang attribute push(__attribute__((target(\"avx,avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni\"))), apply_to = function)")
#define LLMPRESS_END_TARGET _Pragma("clang attribute pop")
#elif LLMPRESS_X86
#define LLMPRESS_BEGIN_AVX2 \
  _Pragma("GCC push_options") \
  _Pragma("GCC target(\"avx,avx2,fma,f16c,popcnt\")")
#define LLMPRESS_BEGIN_AVX512 \
  _Pragma("GCC push_options") \
  _Pragma("GCC target(\"avx,avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni\")")
#define LLMPRESS_END_TARGET _Pragma("GCC pop_options")
#endif
// clang-format on

// Before a loop over registers, whose bounds are constants.
#if defined(__clang__)
#define LLMPRESS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LLMPRESS_UNROLL _Pragma("GCC unroll 16")
#endif

// For the wrappers of single instructions, which must never become calls.
#define LLMPRESS_INLINE inline __attribute__((always_inline))
// For lambdas inside such a stretch, between the parameters and the body.
#define LLMPRESS_LAMBDA __attribute__((always_inline))

// The operations of simd_avx512.h in two halves of eight lanes with AVX2.
#pragma once

#include "compress/kernels/target.h"

#if LLMPRESS_X86
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

LLMPRESS_BEGIN_AVX2
namespace llmpress {

struct Avx2 {
  struct F {
    __m256 lo, hi;
  };
  struct I {
    __m256i lo, hi;
  };
  struct Table {
    __m256 low8, high8;
  };
  static constexpr std::size_t kTileTokens = 6, kTilePanels = 1;

  static LLMPRESS_INLINE F zero() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
  }
  static LLMPRESS_INLINE void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
  }
  static LLMPRESS_INLINE F load(const void* p) {
    const auto* const f = static_cast<const float*>(p);
    return {_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
  }
  static LLMPRESS_INLINE void store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static LLMPRESS_INLINE F broadcast(float x) {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
  }
  static LLMPRESS_INLINE F add(F a, F b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F sub(F a, F b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F mul(F a, F b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F div(F a, F b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F max(F a, F b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F min(F a, F b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo),
            _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static LLMPRESS_INLINE F fnma(F a, F b, F c) {
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo),
            _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
  }
  static LLMPRESS_INLINE F load_f16(const void* p) {
    return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p, 16))};
  }
  static LLMPRESS_INLINE F load_bf16(const void* p) {
    return as_float(
        {_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16),
         _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p, 16)), 16)});
  }
  static LLMPRESS_INLINE I load_i8_lanes(const void* p) {
    return {_mm256_cvtepi8_epi32(load64(p)),
            _mm256_cvtepi8_epi32(load64(p, 8))};
  }
  static LLMPRESS_INLINE F load_i8(const void* p) {
    return to_float(load_i8_lanes(p));
  }
  static LLMPRESS_INLINE F load_e8m0(const void* p) {
    return {e8m0_of(load64(p)), e8m0_of(load64(p, 8))};
  }
  static LLMPRESS_INLINE F load_e4m3(const void* p) {
    const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load128(p)), 7);
    return f16_halves(
        _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<short>(0xbf80))));
  }
  static LLMPRESS_INLINE F load_e5m2(const void* p) {
    return f16_halves(_mm256_slli_epi16(_mm256_cvtepu8_epi16(load128(p)), 8));
  }

  static LLMPRESS_INLINE I load_lanes(const void* p) {
    const auto* const v = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
  }
  static LLMPRESS_INLINE void store_lanes(void* p, I x) {
    auto* const v = static_cast<__m256i*>(p);
    _mm256_storeu_si256(v, x.lo);
    _mm256_storeu_si256(v + 1, x.hi);
  }
  static LLMPRESS_INLINE I zero_lanes() {
    return {_mm256_setzero_si256(), _mm256_setzero_si256()};
  }
  static LLMPRESS_INLINE I broadcast_lanes(std::int32_t x) {
    return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
  }
  static LLMPRESS_INLINE I and_(I a, I b) {
    return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE I xor_(I a, I b) {
    return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE I add(I a, I b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE I sub(I a, I b) {
    return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE I mul(I a, I b) {
    return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE F to_float(I x) {
    return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)};
  }
  static LLMPRESS_INLINE I to_lanes(F x) {
    return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)};
  }
  static LLMPRESS_INLINE I bits_of(F x) {
    return {_mm256_castps_si256(x.lo), _mm256_castps_si256(x.hi)};
  }
  static LLMPRESS_INLINE F as_float(I x) {
    return {_mm256_castsi256_ps(x.lo), _mm256_castsi256_ps(x.hi)};
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_left(I x) {
    return {_mm256_slli_epi32(x.lo, Bits), _mm256_slli_epi32(x.hi, Bits)};
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_right(I x) {
    return {_mm256_srli_epi32(x.lo, Bits), _mm256_srli_epi32(x.hi, Bits)};
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_right_signed(I x) {
    return {_mm256_srai_epi32(x.lo, Bits), _mm256_srai_epi32(x.hi, Bits)};
  }
  static LLMPRESS_INLINE I shift_right(I x, unsigned bits) {
    const __m128i count = _mm_cvtsi32_si128(static_cast<int>(bits));
    return {_mm256_srl_epi32(x.lo, count), _mm256_srl_epi32(x.hi, count)};
  }

  static LLMPRESS_INLINE Table load_table(const float* sixteen) {
    return {_mm256_loadu_ps(sixteen), _mm256_loadu_ps(sixteen + 8)};
  }
  static LLMPRESS_INLINE F look_up(Table table, I x) {
    return {look_up_half(table, x.lo), look_up_half(table, x.hi)};
  }

  // Octets 0, 2 and 1, 3 widened to 16 bits: _mm256_maddubs_epi16 would
  // saturate at 255 * 127 * 2.
  struct Octets {
    __m256i even, odd;
  };
  static LLMPRESS_INLINE Octets broadcast_octets(const std::int8_t* four) {
    std::int32_t x = 0;
    std::memcpy(&x, four, sizeof x);
    const __m256i all = _mm256_set1_epi32(x);
    return {_mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8),
            _mm256_srai_epi16(all, 8)};
  }
  static LLMPRESS_INLINE I dot(I sum, I w, Octets x) {
    return {dot_half(sum.lo, w.lo, x), dot_half(sum.hi, w.hi, x)};
  }

 private:
  static LLMPRESS_INLINE __m128i load128(const void* p, std::size_t skip = 0) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(
        static_cast<const std::byte*>(p) + skip));
  }
  static LLMPRESS_INLINE __m128i load64(const void* p, std::size_t skip = 0) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(
        static_cast<const std::byte*>(p) + skip));
  }
  static LLMPRESS_INLINE __m256 e8m0_of(__m128i codes) {
    const __m256i e = _mm256_cvtepu8_epi32(codes);
    const __m256i none = _mm256_cmpeq_epi32(e, _mm256_setzero_si256());
    return _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_slli_epi32(e, 23)),
                            _mm256_set1_ps(0x1p-127f),
                            _mm256_castsi256_ps(none));
  }
  static LLMPRESS_INLINE F f16_halves(__m256i h) {
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(h)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1))};
  }
  static LLMPRESS_INLINE __m256 look_up_half(Table table, __m256i x) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low8, x),
                            _mm256_permutevar8x32_ps(table.high8, x),
                            _mm256_castsi256_ps(_mm256_slli_epi32(x, 28)));
  }
  static LLMPRESS_INLINE __m256i dot_half(__m256i sum, __m256i w, Octets x) {
    const __m256i even = _mm256_and_si256(w, _mm256_set1_epi16(0x00ff));
    const __m256i odd = _mm256_srli_epi16(w, 8);
    return _mm256_add_epi32(
        _mm256_add_epi32(sum, _mm256_madd_epi16(even, x.even)),
        _mm256_madd_epi16(odd, x.odd));
  }
};

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

// Sixteen lanes at a time with AVX-512: the operations that the kernels are
// written in. simd_avx2.h offers the same names. Include inside nothing; the
// code that uses it stands between LLMPRESS_BEGIN_AVX512 and
// LLMPRESS_END_TARGET.
#pragma once

#include "compress/kernels/expand_places.h"
#include "compress/kernels/target.h"

#if LLMPRESS_X86
#if !defined(__clang__)
// GCC 12 takes its own _mm512_undefined_ps() for a variable used unset
// (bug 105593), in every function that an intrinsic is inlined into.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

LLMPRESS_BEGIN_AVX512
namespace llmpress {

struct Avx512 {
  using F = __m512;   // 16 floats
  using I = __m512i;  // 16 int32
  using Table = __m512;
  // The register tile of a product: kTileTokens x kTilePanels accumulators.
  static constexpr std::size_t kTileTokens = 12, kTilePanels = 2;
  // Up to so many tiles of tokens a vector of codes is decoded for each of them.
  static constexpr std::size_t kFusedTiles = 3;
  // Of a product with few tokens, panels times tokens.
  static constexpr std::size_t kFewAccumulators = 16;
  // So many sums side by side hide the latency of a multiplication.
  static constexpr std::size_t kFewestSums = 8;
  // Of a product with rounded inputs.
  static constexpr std::size_t kRoundedTileTokens = 12, kWordTileTokens = 12;
  // Octets of a row in a decoded tile.
  static constexpr std::size_t kRoundedTileDepth = 2048;
  // Whether products of octets are added in words of 16 bits, for want of an
  // instruction that adds them in 32.
  static constexpr bool kSumsWords = false;
  // Whether a table of floats is looked up octet by octet.
  static constexpr bool kLooksUpOctets = false;
  // Whether a register tile asks for the inputs of the next one.
  static constexpr bool kPrefetchesTiles = false;

  static LLMPRESS_INLINE F zero() { return _mm512_setzero_ps(); }
  static LLMPRESS_INLINE void prefetch(const void* p) {
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
  }
  static LLMPRESS_INLINE F load(const void* p) { return _mm512_loadu_ps(p); }
  static LLMPRESS_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static LLMPRESS_INLINE F broadcast(float x) { return _mm512_set1_ps(x); }
  static LLMPRESS_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  static LLMPRESS_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static LLMPRESS_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static LLMPRESS_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
  // The second operand where either is NaN.
  static LLMPRESS_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
  static LLMPRESS_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
  // a * b + c, rounded once.
  static LLMPRESS_INLINE F fma(F a, F b, F c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  // c - a * b.
  static LLMPRESS_INLINE F fnma(F a, F b, F c) {
    return _mm512_fnmadd_ps(a, b, c);
  }
  static LLMPRESS_INLINE F round(F x) {  // to nearest, ties to even
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  }
  // `other` in the lanes where x > 0 does not hold.
  static LLMPRESS_INLINE F where_positive(F x, F value, F other) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, zero(), _CMP_GT_OQ),
                                other, value);
  }
  // `other` in the lanes where first <= x <= last does not hold.
  static LLMPRESS_INLINE F where_between(I x, I first, I last, F value,
                                         F other) {
    const __mmask16 inside = _mm512_cmp_epi32_mask(first, x, _MM_CMPINT_LE) &
                             _mm512_cmp_epi32_mask(x, last, _MM_CMPINT_LE);
    return _mm512_mask_blend_ps(inside, other, value);
  }
  static LLMPRESS_INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }

  struct D {  // 16 doubles
    __m512d lo, hi;
  };
  static LLMPRESS_INLINE D widen(F x) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
  }
  static LLMPRESS_INLINE D zero_doubles() {
    return {_mm512_setzero_pd(), _mm512_setzero_pd()};
  }
  static LLMPRESS_INLINE D broadcast(double x) {
    return {_mm512_set1_pd(x), _mm512_set1_pd(x)};
  }
  static LLMPRESS_INLINE D add(D a, D b) {
    return {_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE D sub(D a, D b) {
    return {_mm512_sub_pd(a.lo, b.lo), _mm512_sub_pd(a.hi, b.hi)};
  }
  static LLMPRESS_INLINE D fma(D a, D b, D c) {
    return {_mm512_fmadd_pd(a.lo, b.lo, c.lo),
            _mm512_fmadd_pd(a.hi, b.hi, c.hi)};
  }
  static LLMPRESS_INLINE double sum(D x) {
    return _mm512_reduce_add_pd(_mm512_add_pd(x.lo, x.hi));
  }

  static LLMPRESS_INLINE F load_f16(const void* p) {
    return _mm512_cvtph_ps(load256(p));
  }
  static LLMPRESS_INLINE F load_bf16(const void* p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16));
  }
  static LLMPRESS_INLINE I load_i8_lanes(const void* p) {
    return _mm512_cvtepi8_epi32(load128(p));
  }
  static LLMPRESS_INLINE F load_i8(const void* p) {
    return to_float(load_i8_lanes(p));
  }
  // 2^(e - 127); e is not 255.
  static LLMPRESS_INLINE F load_e8m0(const void* p) {
    const I e = _mm512_cvtepu8_epi32(load128(p));
    // Exponent 0 is the subnormal 2^-127.
    return _mm512_mask_blend_ps(
        _mm512_cmpeq_epi32_mask(e, _mm512_setzero_si512()),
        _mm512_castsi512_ps(_mm512_slli_epi32(e, 23)),
        _mm512_set1_ps(0x1p-127f));
  }
  // The value / 2^8; the code is not NaN.
  static LLMPRESS_INLINE F load_e4m3(const void* p) {
    const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load128(p)), 7);
    return _mm512_cvtph_ps(
        _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<short>(0xbf80))));
  }
  static LLMPRESS_INLINE F load_e5m2(const void* p) {
    return _mm512_cvtph_ps(
        _mm256_slli_epi16(_mm256_cvtepu8_epi16(load128(p)), 8));
  }
  static LLMPRESS_INLINE F load_u8(const void* p) {
    return to_float(_mm512_cvtepu8_epi32(load128(p)));
  }
  static LLMPRESS_INLINE __m256i places_of(unsigned mask8) {
    return _mm256_load_si256(
        reinterpret_cast<const __m256i*>(expand_places[mask8].data()));
  }
  // Lane i takes the next number of `packed` if bit i of `mask` is set, else 0.
  // All loads read 16 numbers, needed or not. Permuted by a table: where
  // vexpandps is slow (Zen 5) that takes less than half the time, elsewhere the
  // same.
  static LLMPRESS_INLINE F expand(F packed, unsigned mask) {
    const unsigned low = mask & 0xff;
    const __m256i high = _mm256_add_epi32(
        places_of(mask >> 8), _mm256_set1_epi32(__builtin_popcount(low)));
    const __m512i places =
        _mm512_inserti64x4(_mm512_castsi256_si512(places_of(low)), high, 1);
    return _mm512_maskz_permutexvar_ps(static_cast<__mmask16>(mask), places,
                                       packed);
  }
  static LLMPRESS_INLINE F load_expanded(const void* p, unsigned mask) {
    return expand(load(p), mask);
  }
  static LLMPRESS_INLINE F load_expanded_f16(const void* p, unsigned mask) {
    return expand(load_f16(p), mask);
  }
  static LLMPRESS_INLINE F load_expanded_bf16(const void* p, unsigned mask) {
    return expand(load_bf16(p), mask);
  }
  static LLMPRESS_INLINE F load_expanded_u8(const void* p, unsigned mask) {
    return expand(load_u8(p), mask);
  }
  // Lane i is `word` >> 2 i.
  static LLMPRESS_INLINE I two_bit_fields(std::uint32_t word) {
    const __m512i shift = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                            20, 22, 24, 26, 28, 30);
    return _mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(word)), shift);
  }
  // Lane i of each four takes the lane of the same four that the low two bits
  // of i's index name.
  static LLMPRESS_INLINE F pick_in_fours(F x, I index) {
    return _mm512_permutevar_ps(x, index);
  }
  static LLMPRESS_INLINE F broadcast_four(const float* four) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(four));
  }
  // 0 in the lanes without a bit.
  static LLMPRESS_INLINE F keep(F x, unsigned mask) {
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), x);
  }
  static LLMPRESS_INLINE float sum(F x) { return _mm512_reduce_add_ps(x); }

  static LLMPRESS_INLINE I load_lanes(const void* p) {
    return _mm512_loadu_si512(p);
  }
  static LLMPRESS_INLINE void store_lanes(void* p, I x) {
    _mm512_storeu_si512(p, x);
  }
  // Numbers within -128..127.
  static LLMPRESS_INLINE void store_i8(std::int8_t* p, I x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
  }
  static LLMPRESS_INLINE I zero_lanes() { return _mm512_setzero_si512(); }
  static LLMPRESS_INLINE I broadcast_lanes(std::int32_t x) {
    return _mm512_set1_epi32(x);
  }
  static LLMPRESS_INLINE I and_(I a, I b) { return _mm512_and_si512(a, b); }
  static LLMPRESS_INLINE I xor_(I a, I b) { return _mm512_xor_si512(a, b); }
  static LLMPRESS_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static LLMPRESS_INLINE I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static LLMPRESS_INLINE I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static LLMPRESS_INLINE F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static LLMPRESS_INLINE I to_lanes(F x) { return _mm512_cvtps_epi32(x); }
  static LLMPRESS_INLINE I bits_of(F x) { return _mm512_castps_si512(x); }
  static LLMPRESS_INLINE F as_float(I x) { return _mm512_castsi512_ps(x); }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_left(I x) {
    return _mm512_slli_epi32(x, Bits);
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_right(I x) {
    return _mm512_srli_epi32(x, Bits);
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_right_signed(I x) {
    return _mm512_srai_epi32(x, Bits);
  }
  static LLMPRESS_INLINE I shift_right(I x, unsigned bits) {
    return _mm512_srl_epi32(x, _mm_cvtsi32_si128(static_cast<int>(bits)));
  }

  static LLMPRESS_INLINE Table load_table(const float* sixteen) {
    return _mm512_loadu_ps(sixteen);
  }
  // table[x & 15] in each lane.
  static LLMPRESS_INLINE F look_up(Table table, I x) {
    return _mm512_permutexvar_ps(x, table);
  }

  // table[x] for octets x < 16.
  using OctetTable = __m512i;
  static LLMPRESS_INLINE OctetTable load_octet_table(const std::uint8_t* t) {
    return _mm512_broadcast_i32x4(load128(t));
  }
  static LLMPRESS_INLINE I look_up_octets(OctetTable table, I x) {
    return _mm512_shuffle_epi8(table, x);
  }

  // Four signed octets, broadcast, as dot() wants them.
  using Octets = __m512i;
  static LLMPRESS_INLINE Octets broadcast_octets(const std::int8_t* four) {
    std::int32_t x = 0;
    std::memcpy(&x, four, sizeof x);
    return _mm512_set1_epi32(x);
  }
  // sum + the products of the lane's four unsigned octets in `w` with `x`.
  // _mm512_dpbusd_epi32, which GCC 12 gives a second register for the result,
  // and a place on the stack, written in every round of a loop.
  static LLMPRESS_INLINE I dot(I sum, I w, Octets x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
  // The same for unsigned octets up to 63 and signed ones from -127 on.
  using SmallOctets = __m512i;
  static LLMPRESS_INLINE SmallOctets broadcast_small(const std::int8_t* four) {
    return broadcast_octets(four);
  }
  // The products of both.
  static LLMPRESS_INLINE I dot_two(I sum, I w0, SmallOctets x0, I w1,
                                   SmallOctets x1) {
    return dot(dot(sum, w0, x0), w1, x1);
  }
  // Both, of numbers of two parts: 64 high + low.
  struct PairSums {
    I high, low;
  };
  static LLMPRESS_INLINE PairSums no_pairs() {
    return {zero_lanes(), zero_lanes()};
  }
  static LLMPRESS_INLINE PairSums dot_pairs(PairSums sums, const I (&high)[2],
                                            const I (&low)[2], SmallOctets x0,
                                            SmallOctets x1) {
    return {dot_two(sums.high, high[0], x0, high[1], x1),
            dot_two(sums.low, low[0], x0, low[1], x1)};
  }
  static LLMPRESS_INLINE I total(PairSums sums) {
    return add(shift_left<6>(sums.high), sums.low);
  }

  static LLMPRESS_INLINE __m256i load256(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static LLMPRESS_INLINE __m128i load128(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
};

}  // namespace llmpress
LLMPRESS_END_TARGET
#endif

// The operations of simd_avx512.h in two halves of eight lanes with AVX2.
#pragma once

#include "compress/kernels/expand_places.h"
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
  static constexpr std::size_t kFusedTiles = 4;
  static constexpr std::size_t kFewAccumulators = 4;
  static constexpr std::size_t kFewestSums = 1;
  static constexpr std::size_t kRoundedTileTokens = 4, kWordTileTokens = 6;
  static constexpr std::size_t kRoundedTileDepth = 1024;
  static constexpr bool kSumsWords = true;
  static constexpr bool kLooksUpOctets = true;
  static constexpr bool kPrefetchesTiles = true;

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
  static LLMPRESS_INLINE F round(F x) {
    return {_mm256_round_ps(x.lo, kNearest), _mm256_round_ps(x.hi, kNearest)};
  }
  static LLMPRESS_INLINE F where_positive(F x, F value, F other) {
    const __m256 none = _mm256_setzero_ps();
    return {_mm256_blendv_ps(other.lo, value.lo,
                             _mm256_cmp_ps(x.lo, none, _CMP_GT_OQ)),
            _mm256_blendv_ps(other.hi, value.hi,
                             _mm256_cmp_ps(x.hi, none, _CMP_GT_OQ))};
  }
  static LLMPRESS_INLINE F where_between(I x, I first, I last, F value,
                                         F other) {
    return {where_between(x.lo, first.lo, last.lo, value.lo, other.lo),
            where_between(x.hi, first.hi, last.hi, value.hi, other.hi)};
  }
  static LLMPRESS_INLINE float largest(F x) {
    float lanes[16];
    store(lanes, x);
    float max = lanes[0];
    for (int i = 1; i < 16; ++i) max = lanes[i] > max ? lanes[i] : max;
    return max;
  }

  struct D {
    __m256d quarter[4];
  };
  static LLMPRESS_INLINE D widen(F x) {
    return {{_mm256_cvtps_pd(_mm256_castps256_ps128(x.lo)),
             _mm256_cvtps_pd(_mm256_extractf128_ps(x.lo, 1)),
             _mm256_cvtps_pd(_mm256_castps256_ps128(x.hi)),
             _mm256_cvtps_pd(_mm256_extractf128_ps(x.hi, 1))}};
  }
  static LLMPRESS_INLINE D zero_doubles() { return broadcast(0.0); }
  static LLMPRESS_INLINE D broadcast(double x) {
    const __m256d v = _mm256_set1_pd(x);
    return {{v, v, v, v}};
  }
  static LLMPRESS_INLINE D add(D a, D b) {
    LLMPRESS_UNROLL for (int i = 0; i < 4; ++i) {
      a.quarter[i] = _mm256_add_pd(a.quarter[i], b.quarter[i]);
    }
    return a;
  }
  static LLMPRESS_INLINE D sub(D a, D b) {
    LLMPRESS_UNROLL for (int i = 0; i < 4; ++i) {
      a.quarter[i] = _mm256_sub_pd(a.quarter[i], b.quarter[i]);
    }
    return a;
  }
  static LLMPRESS_INLINE D fma(D a, D b, D c) {
    LLMPRESS_UNROLL for (int i = 0; i < 4; ++i) {
      a.quarter[i] = _mm256_fmadd_pd(a.quarter[i], b.quarter[i], c.quarter[i]);
    }
    return a;
  }
  static LLMPRESS_INLINE double sum(D x) {
    double lanes[4];
    _mm256_storeu_pd(lanes,
                     _mm256_add_pd(_mm256_add_pd(x.quarter[0], x.quarter[1]),
                                   _mm256_add_pd(x.quarter[2], x.quarter[3])));
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
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
  static LLMPRESS_INLINE F load_u8(const void* p) {
    return to_float(
        {_mm256_cvtepu8_epi32(load64(p)), _mm256_cvtepu8_epi32(load64(p, 8))});
  }
  static LLMPRESS_INLINE F load_expanded(const void* p, unsigned mask) {
    return expand(load(p), load(after_low(p, mask, 4)), mask);
  }
  static LLMPRESS_INLINE F load_expanded_f16(const void* p, unsigned mask) {
    return expand(load_f16(p), load_f16(after_low(p, mask, 2)), mask);
  }
  static LLMPRESS_INLINE F load_expanded_bf16(const void* p, unsigned mask) {
    return expand(load_bf16(p), load_bf16(after_low(p, mask, 2)), mask);
  }
  static LLMPRESS_INLINE F load_expanded_u8(const void* p, unsigned mask) {
    return expand(load_u8(p), load_u8(after_low(p, mask, 1)), mask);
  }
  static LLMPRESS_INLINE I two_bit_fields(std::uint32_t word) {
    const __m256i low = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const __m256i all = _mm256_set1_epi32(static_cast<int>(word));
    const __m256i high = _mm256_add_epi32(low, _mm256_set1_epi32(16));
    return {_mm256_srlv_epi32(all, low), _mm256_srlv_epi32(all, high)};
  }
  static LLMPRESS_INLINE F pick_in_fours(F x, I index) {
    return {_mm256_permutevar_ps(x.lo, index.lo),
            _mm256_permutevar_ps(x.hi, index.hi)};
  }
  static LLMPRESS_INLINE F broadcast_four(const float* four) {
    const __m256 both = _mm256_broadcast_ps(
        static_cast<const __m128*>(static_cast<const void*>(four)));
    return {both, both};
  }
  static LLMPRESS_INLINE F keep(F x, unsigned mask) {
    return {_mm256_and_ps(x.lo, lanes_of(mask & 0xff)),
            _mm256_and_ps(x.hi, lanes_of(mask >> 8))};
  }
  static LLMPRESS_INLINE float sum(F x) {
    const __m256 s = _mm256_add_ps(x.lo, x.hi);
    const __m128 q =
        _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
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
  static LLMPRESS_INLINE void store_i8(std::int8_t* p, I x) {
    // The halves of 128 bits are packed apart; the permutation sorts them.
    const __m256i words =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), 0b11'01'10'00);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm256_castsi256_si128(words),
                                     _mm256_extracti128_si256(words, 1)));
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

  // table[x] for octets x < 16.
  using OctetTable = __m256i;
  static LLMPRESS_INLINE OctetTable load_octet_table(const std::uint8_t* t) {
    return _mm256_broadcastsi128_si256(load128(t));
  }
  static LLMPRESS_INLINE I look_up_octets(OctetTable table, I x) {
    return {_mm256_shuffle_epi8(table, x.lo), _mm256_shuffle_epi8(table, x.hi)};
  }

  // Octet b of each of sixteen floats.
  struct OctetPlanes {
    __m256i plane[4];
  };
  static LLMPRESS_INLINE OctetPlanes load_octet_planes(const float* sixteen) {
    const auto four = [&](std::size_t first) LLMPRESS_LAMBDA {
      return _mm_shuffle_epi8(load128(sixteen + first), transposed_places());
    };
    const __m128i a = four(0), b = four(4), c = four(8), d = four(12);
    const __m128i ab01 = _mm_unpacklo_epi32(a, b);
    const __m128i cd01 = _mm_unpacklo_epi32(c, d);
    const __m128i ab23 = _mm_unpackhi_epi32(a, b);
    const __m128i cd23 = _mm_unpackhi_epi32(c, d);
    return {_mm256_broadcastsi128_si256(_mm_unpacklo_epi64(ab01, cd01)),
            _mm256_broadcastsi128_si256(_mm_unpackhi_epi64(ab01, cd01)),
            _mm256_broadcastsi128_si256(_mm_unpacklo_epi64(ab23, cd23)),
            _mm256_broadcastsi128_si256(_mm_unpackhi_epi64(ab23, cd23))};
  }
  // Octet j of lane r of each four lanes to octet r of lane j.
  static LLMPRESS_INLINE I transpose_fours(I x) {
    const __m256i places = _mm256_broadcastsi128_si256(transposed_places());
    return {_mm256_shuffle_epi8(x.lo, places),
            _mm256_shuffle_epi8(x.hi, places)};
  }
  // The floats of octets < 16, transposed: values[j] of what was octet j of
  // each lane.
  static LLMPRESS_INLINE void look_up_fours(const OctetPlanes& t, I x,
                                            F* values) {
    look_up_fours_half(t, x.lo, values[0].lo, values[1].lo, values[2].lo,
                       values[3].lo);
    look_up_fours_half(t, x.hi, values[0].hi, values[1].hi, values[2].hi,
                       values[3].hi);
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

  // The same for unsigned octets up to 63 and signed ones from -127 on, which
  // keep _mm256_maddubs_epi16 and the sum of two from saturating.
  using SmallOctets = __m256i;
  static LLMPRESS_INLINE SmallOctets broadcast_small(const std::int8_t* four) {
    std::int32_t x = 0;
    std::memcpy(&x, four, sizeof x);
    return _mm256_set1_epi32(x);
  }
  // The products of both.
  static LLMPRESS_INLINE I dot_two(I sum, I w0, SmallOctets x0, I w1,
                                   SmallOctets x1) {
    return {add_pairs(sum.lo, two_halves(w0.lo, x0, w1.lo, x1)),
            add_pairs(sum.hi, two_halves(w0.hi, x0, w1.hi, x1))};
  }
  // Both, of numbers of two parts: 64 high + low.
  struct PairSums {
    I sum;
  };
  static LLMPRESS_INLINE PairSums no_pairs() { return {zero_lanes()}; }
  static LLMPRESS_INLINE PairSums dot_pairs(PairSums sums, const I (&high)[2],
                                            const I (&low)[2], SmallOctets x0,
                                            SmallOctets x1) {
    return {
        {add_two_parts(sums.sum.lo, two_halves(high[0].lo, x0, high[1].lo, x1),
                       two_halves(low[0].lo, x0, low[1].lo, x1)),
         add_two_parts(sums.sum.hi, two_halves(high[0].hi, x0, high[1].hi, x1),
                       two_halves(low[0].hi, x0, low[1].hi, x1))}};
  }
  static LLMPRESS_INLINE I total(PairSums sums) { return sums.sum; }

  // Words of 16 bits: the products with two inputs added.
  static LLMPRESS_INLINE I multiply_small(I w, SmallOctets x) {
    return {_mm256_maddubs_epi16(w.lo, x), _mm256_maddubs_epi16(w.hi, x)};
  }
  static LLMPRESS_INLINE I add_words(I a, I b) {
    return {_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)};
  }
  // sums + multiply_small(w, x). As one statement, because GCC 12 would make
  // the products of a whole tile first and leave no register for the sums.
  static LLMPRESS_INLINE I add_small(I sums, I w, SmallOctets x) {
    __m256i product;
    __asm__("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0"
            : "+x"(sums.lo), "=&x"(product)
            : "x"(x), "x"(w.lo));
    __asm__("vpmaddubsw %2, %3, %1\n\tvpaddw %1, %0, %0"
            : "+x"(sums.hi), "=&x"(product)
            : "x"(x), "x"(w.hi));
    return sums;
  }
  template <unsigned Bits>
  static LLMPRESS_INLINE I shift_left_words(I x) {
    return {_mm256_slli_epi16(x.lo, Bits), _mm256_slli_epi16(x.hi, Bits)};
  }
  static LLMPRESS_INLINE I add_word_pairs(I sum, I words) {
    return {add_pairs(sum.lo, words.lo), add_pairs(sum.hi, words.hi)};
  }
  // Octets 0, 1 and 2, 3 of each lane as words.
  static LLMPRESS_INLINE I low_words(I octets) {
    const __m256i places = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    return {_mm256_shuffle_epi8(octets.lo, places),
            _mm256_shuffle_epi8(octets.hi, places)};
  }
  static LLMPRESS_INLINE I high_words(I octets) {
    const __m256i places = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
    return {_mm256_shuffle_epi8(octets.lo, places),
            _mm256_shuffle_epi8(octets.hi, places)};
  }
  // sum + the products of each lane's two words; see add_small().
  static LLMPRESS_INLINE I dot_words(I sum, I w, __m256i x) {
    __m256i product;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sum.lo), "=&x"(product)
            : "x"(x), "x"(w.lo));
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sum.hi), "=&x"(product)
            : "x"(x), "x"(w.hi));
    return sum;
  }

 private:
  static LLMPRESS_INLINE __m256i two_halves(__m256i w0, SmallOctets x0,
                                            __m256i w1, SmallOctets x1) {
    return _mm256_add_epi16(_mm256_maddubs_epi16(w0, x0),
                            _mm256_maddubs_epi16(w1, x1));
  }
  static LLMPRESS_INLINE __m256i add_two_parts(__m256i sum, __m256i high,
                                               __m256i low) {
    return add_pairs(
        _mm256_add_epi32(sum, _mm256_madd_epi16(high, _mm256_set1_epi16(64))),
        low);
  }
  static LLMPRESS_INLINE __m256i add_pairs(__m256i sum, __m256i words) {
    return _mm256_add_epi32(sum,
                            _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
  }
  // The number that lane 8 begins with when lanes 0..7 have taken theirs.
  static LLMPRESS_INLINE const std::byte* after_low(const void* p,
                                                    unsigned mask,
                                                    std::size_t bytes) {
    return static_cast<const std::byte*>(p) +
           static_cast<std::size_t>(__builtin_popcount(mask & 0xff)) * bytes;
  }
  static LLMPRESS_INLINE __m256 lanes_of(unsigned mask8) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set =
        _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask8)), bit);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bit));
  }
  static LLMPRESS_INLINE __m256 expand_half(__m256 packed, unsigned mask8) {
    const __m256i places = _mm256_load_si256(
        reinterpret_cast<const __m256i*>(expand_places[mask8].data()));
    return _mm256_blendv_ps(_mm256_setzero_ps(),
                            _mm256_permutevar8x32_ps(packed, places),
                            _mm256_castsi256_ps(places));
  }
  // The low lanes of both operands.
  static LLMPRESS_INLINE F expand(F low, F high, unsigned mask) {
    return {expand_half(low.lo, mask & 0xff), expand_half(high.lo, mask >> 8)};
  }
  static constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  static LLMPRESS_INLINE __m256 where_between(__m256i x, __m256i first,
                                              __m256i last, __m256 value,
                                              __m256 other) {
    const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(first, x),
                                            _mm256_cmpgt_epi32(x, last));
    return _mm256_blendv_ps(value, other, _mm256_castsi256_ps(outside));
  }
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
  // Of a 4 x 4 matrix of octets.
  static LLMPRESS_INLINE __m128i transposed_places() {
    return _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  }
  static LLMPRESS_INLINE void look_up_fours_half(const OctetPlanes& t,
                                                 __m256i x, __m256& v0,
                                                 __m256& v1, __m256& v2,
                                                 __m256& v3) {
    const __m256i b0 = _mm256_shuffle_epi8(t.plane[0], x);
    const __m256i b1 = _mm256_shuffle_epi8(t.plane[1], x);
    const __m256i b2 = _mm256_shuffle_epi8(t.plane[2], x);
    const __m256i b3 = _mm256_shuffle_epi8(t.plane[3], x);
    const __m256i low01 = _mm256_unpacklo_epi8(b0, b1);
    const __m256i low23 = _mm256_unpacklo_epi8(b2, b3);
    const __m256i high01 = _mm256_unpackhi_epi8(b0, b1);
    const __m256i high23 = _mm256_unpackhi_epi8(b2, b3);
    v0 = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low01, low23));
    v1 = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low01, low23));
    v2 = _mm256_castsi256_ps(_mm256_unpacklo_epi16(high01, high23));
    v3 = _mm256_castsi256_ps(_mm256_unpackhi_epi16(high01, high23));
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

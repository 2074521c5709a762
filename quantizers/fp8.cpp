#include "quantizers/fp8.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "compress/core/magnitude.h"
#include "compress/core/vector_clones.h"
#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

using WordLanes = std::uint32_t __attribute__((vector_size(32)));

// codes[i] = the code nearest to w[i] / scale, the largest beyond it, as
// e4m3_from_float() and e5m2_clamped() one by one.
using EncodeRow = void(const float* w, std::size_t n, float scale,
                       std::uint8_t* codes);

struct Format {
  float largest;
  std::uint8_t (*encode)(float);
  float (*decode)(std::uint8_t);
  EncodeRow* encode_row;
};

// Values beyond 57344 would become infinity in the hardware's E5M2 cast.
std::uint8_t e5m2_clamped(float x) {
  return e5m2_from_float(std::clamp(x, -kE5M2Max, kE5M2Max));
}

// float_bits::encode_magnitude() of eight numbers in place: GCC sees no vectors in that
// one, whose addition may trap.
template <unsigned ExponentBits, unsigned MantissaBits>
inline __attribute__((always_inline)) void encode_magnitudes(
    WordLanes& magnitudes) {
  constexpr std::uint32_t kBias = (1u << (ExponentBits - 1)) - 1;
  constexpr std::uint32_t kShift = 23 - MantissaBits;
  constexpr std::uint32_t kRebias = (127 - kBias) << 23;
  constexpr std::uint32_t kSmallestNormal = kRebias + (1u << 23);
  constexpr std::uint32_t kMagic = (127 + 24 - kBias - MantissaBits) << 23;
  const WordLanes rebased = magnitudes - kRebias;
  const WordLanes normal =
      (rebased + ((1u << (kShift - 1)) - 1) + ((rebased >> kShift) & 1u)) >>
      kShift;
  const FloatLanes sum =
      reinterpret_cast<FloatLanes>(magnitudes) + std::bit_cast<float>(kMagic);
  const WordLanes subnormal = reinterpret_cast<WordLanes>(sum) - kMagic;
  // Magnitudes are below 2^31, so that they compare as signed numbers do.
  const IntLanes is_normal = reinterpret_cast<IntLanes>(magnitudes) >=
                             static_cast<std::int32_t>(kSmallestNormal);
  const auto mask = reinterpret_cast<WordLanes>(is_normal);
  magnitudes = (normal & mask) | (subnormal & ~mask);
}

template <unsigned ExponentBits, unsigned MantissaBits>
inline __attribute__((always_inline)) void encode_lanes(
    const float* w, std::size_t n, float scale, float largest,
    std::uint8_t (*encode)(float), std::uint8_t* codes) {
  std::size_t i = 0;
  for (; i + kFloatLanes <= n; i += kFloatLanes) {
    FloatLanes x;
    std::memcpy(&x, w + i, sizeof x);
    x /= scale;
    const auto bits = reinterpret_cast<WordLanes>(x);
    WordLanes magnitudes = bits & 0x7fffffffu;
    const auto signed_magnitudes = reinterpret_cast<IntLanes>(magnitudes);
    const IntLanes odd = signed_magnitudes > 0x7f800000;  // NaN
    if (__builtin_expect((odd[0] | odd[1] | odd[2] | odd[3] | odd[4] | odd[5] |
                          odd[6] | odd[7]) != 0,
                         0)) {
      break;
    }
    const auto most = std::bit_cast<std::uint32_t>(largest);
    const IntLanes above = signed_magnitudes > static_cast<std::int32_t>(most);
    const auto mask = reinterpret_cast<WordLanes>(above);
    magnitudes = (magnitudes & ~mask) | (most & mask);
    encode_magnitudes<ExponentBits, MantissaBits>(magnitudes);
    const WordLanes lanes = magnitudes | ((bits >> 24) & 0x80u);
    const OctetLanes octets = __builtin_convertvector(lanes, OctetLanes);
    std::memcpy(codes + i, &octets, sizeof octets);
  }
  for (; i < n; ++i) codes[i] = encode(w[i] / scale);
}

LLMPRESS_VECTOR_CLONES
void encode_e4m3(const float* w, std::size_t n, float scale,
                 std::uint8_t* codes) {
  encode_lanes<4, 3>(w, n, scale, kE4M3Max, e4m3_from_float, codes);
}

LLMPRESS_VECTOR_CLONES
void encode_e5m2(const float* w, std::size_t n, float scale,
                 std::uint8_t* codes) {
  encode_lanes<5, 2>(w, n, scale, kE5M2Max, e5m2_clamped, codes);
}

Format format_of(WeightType type) {
  if (type == WeightType::kFp8E4M3) {
    return {kE4M3Max, e4m3_from_float, e4m3_to_float, encode_e4m3};
  }
  return {kE5M2Max, e5m2_clamped, e5m2_to_float, encode_e5m2};
}

struct Block {
  std::size_t row, rows, col, cols;
};

template <class Body>
void for_block(const Block& b, const Body& body) {
  for (std::size_t r = b.row; r < b.row + b.rows; ++r) {
    for (std::size_t c = b.col; c < b.col + b.cols; ++c) body(r, c);
  }
}

float fit_scale(ConstMatrixView W, const Block& b, const Format& format,
                const WeightScheme& scheme) {
  float largest = 0;
  for (std::size_t r = b.row; r < b.row + b.rows; ++r) {
    largest =
        std::max(largest, largest_magnitude(W.row(r).subspan(b.col, b.cols)));
  }
  if (largest == 0) return 1;
  float best = stored_scale(largest / format.largest, scheme.scale_dtype);
  if (scheme.range == RangeSearch::kMinMax) return best;
  double best_error = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 20; ++i) {
    const float p = 1.0f - static_cast<float>(i) / 40.0f;
    const float s =
        stored_scale(p * largest / format.largest, scheme.scale_dtype);
    double error = 0;
    for_block(b, [&](std::size_t r, std::size_t c) {
      const float d = s * format.decode(format.encode(W(r, c) / s)) - W(r, c);
      error +=
          std::pow(static_cast<double>(std::abs(d / largest)), scheme.mse_norm);
    });
    if (error < best_error) {
      best_error = error;
      best = s;
    }
  }
  return best;
}

}  // namespace

Fp8Weight quantize_fp8(ConstMatrixView W, const WeightScheme& scheme,
                       ThreadPool& pool) {
  assert(scheme.type == WeightType::kFp8E4M3 ||
         scheme.type == WeightType::kFp8E5M2);
  const bool e4m3 = scheme.type == WeightType::kFp8E4M3;
  const bool blocks = scheme.block_rows > 0 && scheme.block_cols > 0;
  Fp8Weight q{.out = W.rows(),
              .in = W.cols(),
              .format = e4m3 ? DType::kF8E4M3 : DType::kF8E5M2,
              .scale_dtype = scheme.scale_dtype};
  const std::size_t rows_if_grouped = scheme.group_size == 0 ? q.out : 1;
  q.block_rows = std::min(q.out, blocks ? scheme.block_rows : rows_if_grouped);
  q.block_cols = blocks ? std::min(q.in, scheme.block_cols)
                        : resolved_group_size(scheme, q.in);
  const std::size_t block_columns = ceil_div(q.in, q.block_cols);
  q.codes.resize(q.out * q.in);
  q.scales.resize(ceil_div(q.out, q.block_rows) * block_columns);
  const Format format = format_of(scheme.type);
  pool.for_each(ceil_div(q.out, q.block_rows), [&](std::size_t block_row) {
    const std::size_t row = block_row * q.block_rows;
    for (std::size_t g = 0; g < block_columns; ++g) {
      const std::size_t col = g * q.block_cols;
      const Block block{row, std::min(q.block_rows, q.out - row), col,
                        std::min(q.block_cols, q.in - col)};
      const float scale = fit_scale(W, block, format, scheme);
      q.scales[block_row * block_columns + g] = scale;
      for (std::size_t r = row; r < row + block.rows; ++r) {
        format.encode_row(W.row(r).data() + col, block.cols, scale,
                          q.codes.data() + r * q.in + col);
      }
    }
  });
  return q;
}

}  // namespace llmpress

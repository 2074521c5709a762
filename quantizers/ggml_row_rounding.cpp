#include "quantizers/ggml_row_rounding.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <limits>

#include "compress/core/float_formats.h"
#include "compress/core/vector_clones.h"

namespace llmpress {
namespace {

constexpr std::size_t kBlock = 32;

constexpr std::size_t kVectors = kBlock / kFloatLanes;

// Magnitudes of floats are in the order of their bits.
struct Bits {
  IntLanes of[kVectors];
};

[[gnu::always_inline]] inline Bits bits_of(const float* x) {
  Bits bits;
  for (std::size_t v = 0; v < kVectors; ++v) {
    std::memcpy(&bits.of[v], x + v * kFloatLanes, sizeof bits.of[v]);
  }
  return bits;
}

[[gnu::always_inline]] inline float largest_magnitude(const Bits& bits) {
  IntLanes most{};
  for (std::size_t v = 0; v < kVectors; ++v) {
    const IntLanes magnitudes =
        bits.of[v] & std::numeric_limits<std::int32_t>::max();
    most = magnitudes > most ? magnitudes : most;
  }
  std::int32_t largest = 0;
  for (std::size_t l = 0; l < kFloatLanes; ++l) {
    largest = std::max(largest, most[l]);
  }
  return std::bit_cast<float>(largest);
}

// Of the largest magnitude, of several the first, with its sign.
[[gnu::always_inline]] inline float peak_of(const float* x) {
  const Bits bits = bits_of(x);
  const float magnitude = largest_magnitude(bits);
  if (magnitude == 0) return 0;  // of zeros of either sign
  const auto plus = std::bit_cast<std::int32_t>(magnitude);
  const auto minus = std::bit_cast<std::int32_t>(-magnitude);
  IntLanes at_plus{}, at_minus{};  // -1 in a lane that has it
  for (std::size_t v = 0; v < kVectors; ++v) {
    at_plus |= bits.of[v] == plus;
    at_minus |= bits.of[v] == minus;
  }
  std::int32_t above = 0, below = 0;
  for (std::size_t l = 0; l < kFloatLanes; ++l) {
    above |= at_plus[l];
    below |= at_minus[l];
  }
  // Which of both there is is a matter of chance, that there are both is not.
  if ((above & below) != 0) [[unlikely]] {
    return *std::find_if(x, x + kBlock, [=](float v) {
      return v == magnitude || v == -magnitude;
    });
  }
  return std::bit_cast<float>(below != 0 ? minus : plus);
}

// x, which an infinite inverse of a subnormal scale may make infinite or NaN.
inline float between(float least, float x, float most) {
  return x > least ? (x < most ? x : most) : least;
}

void store_half(float value, std::byte* to) {
  const std::uint16_t half = f16_from_float(value);
  std::memcpy(to, &half, sizeof half);
}

LLMPRESS_VECTOR_CLONES
void round_q4_0(const float* row, std::size_t blocks, std::byte* out) {
  for (std::size_t b = 0; b < blocks; ++b, row += kBlock, out += 18) {
    const float d = peak_of(row) / -8.0f;
    const float inverse = d != 0 ? 1.0f / d : 0.0f;
    store_half(d, out);
    IntLanes codes[kBlock / kFloatLanes];
    for (std::size_t v = 0; v < kBlock / kFloatLanes; ++v) {
      FloatLanes x;
      std::memcpy(&x, row + v * kFloatLanes, sizeof x);
      x = x * inverse + 8.5f;
      x = x > 0.0f ? (x < 15.0f ? x : FloatLanes{} + 15.0f) : FloatLanes{};
      codes[v] = __builtin_convertvector(x, IntLanes);
    }
    OctetLanes pairs[kBlock / kFloatLanes / 2];
    for (std::size_t v = 0; v < kBlock / kFloatLanes / 2; ++v) {
      pairs[v] = __builtin_convertvector(
          codes[v] | codes[v + kBlock / kFloatLanes / 2] << 4, OctetLanes);
    }
    std::memcpy(out + 2, pairs, sizeof pairs);
  }
}

LLMPRESS_VECTOR_CLONES
void round_q8_0(const float* row, std::size_t blocks, std::byte* out) {
  for (std::size_t b = 0; b < blocks; ++b, row += kBlock, out += 34) {
    const float d = largest_magnitude(bits_of(row)) / 127.0f;
    const float inverse = d != 0 ? 1.0f / d : 0.0f;
    store_half(d, out);
    std::int8_t codes[kBlock];
    for (std::size_t i = 0; i < kBlock; ++i) {
      // std::round(): half away from zero.
      const float x = between(-128, row[i] * inverse, 127);
      const auto whole = static_cast<std::int32_t>(x);
      const float rest = x - static_cast<float>(whole);
      const std::int32_t code =
          whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
      codes[i] = static_cast<std::int8_t>(code);
    }
    std::memcpy(out + 2, codes, kBlock);
  }
}

}  // namespace

bool rounds_plain_rows(GgmlType type) {
  return type == GgmlType::kQ4_0 || type == GgmlType::kQ8_0;
}

void round_plain_row(GgmlType type, std::span<const float> row,
                     std::span<std::byte> blocks) {
  const std::size_t count = row.size() / kBlock;
  assert(rounds_plain_rows(type) && row.size() % kBlock == 0 &&
         blocks.size() == count * facts(type).bytes);
  if (type == GgmlType::kQ4_0) {
    round_q4_0(row.data(), count, blocks.data());
  } else {
    round_q8_0(row.data(), count, blocks.data());
  }
}

}  // namespace llmpress

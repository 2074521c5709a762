// The bit arithmetic of float_formats.h, inline for the loops that convert
// whole tensors. Branches are selections, so that compilers can vectorise them.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace llmpress::float_bits {

// The magnitude code of |x| in a format of `ExponentBits` and `MantissaBits`
// with the IEEE bias 2^(ExponentBits-1) - 1, rounded to nearest even as if the
// exponent had no upper end: the caller treats codes beyond the format's last.
// `magnitude`: the bits of a finite |x|.
template <unsigned ExponentBits, unsigned MantissaBits>
constexpr std::uint32_t encode_magnitude(std::uint32_t magnitude) {
  constexpr std::uint32_t kBias = (1u << (ExponentBits - 1)) - 1;
  constexpr std::uint32_t kShift = 23 - MantissaBits;
  constexpr std::uint32_t kRebias = (127 - kBias) << 23;
  constexpr std::uint32_t kSmallestNormal = kRebias + (1u << 23);
  // Adding 2^(24 - kBias - MantissaBits) leaves the multiple of the smallest
  // subnormal in the low bits, rounded to nearest even by the adder itself.
  constexpr std::uint32_t kMagic = (127 + 24 - kBias - MantissaBits) << 23;
  const std::uint32_t rebased = magnitude - kRebias;
  const std::uint32_t normal =
      (rebased + (1u << (kShift - 1)) - 1 + ((rebased >> kShift) & 1u)) >>
      kShift;
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) +
                                   std::bit_cast<float>(kMagic)) -
      kMagic;
  return magnitude >= kSmallestNormal ? normal : subnormal;
}

constexpr std::uint16_t f16_from_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t finite =
      magnitude < 0x47800000u ? magnitude : 0x47800000u;  // 2^16 and up: inf
  std::uint32_t code = encode_magnitude<5, 10>(finite);
  code = code > 0x7c00u ? 0x7c00u : code;
  code =
      magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : code;
  return static_cast<std::uint16_t>(((bits >> 16) & 0x8000u) | code);
}

constexpr float f16_to_float(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16;
  const std::uint32_t exponent = h & 0x7c00u;
  const std::uint32_t mantissa = h & 0x03ffu;
  const std::uint32_t normal = ((h & 0x7fffu) << 13) + (112u << 23);
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(
      static_cast<float>(static_cast<std::int32_t>(mantissa)) * 0x1p-24f);
  const std::uint32_t special =
      0x7f800000u | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0u);
  const std::uint32_t finite = exponent == 0 ? subnormal : normal;
  return std::bit_cast<float>(sign | (exponent == 0x7c00u ? special : finite));
}

constexpr std::uint16_t bf16_from_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<std::uint16_t>(
      (bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

constexpr float bf16_to_float(std::uint16_t h) {
  const std::uint32_t bits = static_cast<std::uint32_t>(h) << 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return std::bit_cast<float>(bits | (nan ? 0x400000u : 0u));
}

// Values that round beyond 448, infinities and NaN become 0x7f.
constexpr std::uint8_t e4m3_from_float_unclamped(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t finite =
      magnitude < 0x44000000u ? magnitude : 0x44000000u;  // 512 and up: NaN
  const std::uint32_t code = encode_magnitude<4, 3>(finite);
  return static_cast<std::uint8_t>(((bits >> 24) & 0x80u) |
                                   (code > 0x7fu ? 0x7fu : code));
}

constexpr std::uint8_t e4m3_from_float(float x) {
  constexpr std::uint32_t kMax = std::bit_cast<std::uint32_t>(448.0f);
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const bool clamped = magnitude > kMax && magnitude <= 0x7f800000u;
  return e4m3_from_float_unclamped(
      std::bit_cast<float>(clamped ? (bits & 0x80000000u) | kMax : bits));
}

constexpr std::uint8_t e5m2_from_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t finite =
      magnitude < 0x47800000u ? magnitude : 0x47800000u;  // 2^16 and up: inf
  std::uint32_t code = encode_magnitude<5, 2>(finite);
  code = code > 0x7cu ? 0x7cu : code;
  code = magnitude > 0x7f800000u ? 0x7eu : code;
  return static_cast<std::uint8_t>(((bits >> 24) & 0x80u) | code);
}

// E5M2 is the upper octet of binary16.
constexpr float e5m2_to_float(std::uint8_t b) {
  return f16_to_float(static_cast<std::uint16_t>(b << 8));
}

// Apart from its NaN, E4M3 shifted into binary16's place is the value / 2^8.
constexpr float e4m3_to_float(std::uint8_t b) {
  const auto h =
      static_cast<std::uint16_t>(((b & 0x80u) << 8) | ((b & 0x7fu) << 7));
  const float value = f16_to_float(h) * 0x1p8f;
  const std::uint32_t nan = ((b & 0x80u) << 24) | 0x7fc00000u;
  return (b & 0x7fu) == 0x7fu ? std::bit_cast<float>(nan) : value;
}

inline constexpr std::array<float, 256> kE4M3Values = [] {
  std::array<float, 256> values{};
  for (std::size_t b = 0; b < 256; ++b) {
    values[b] = e4m3_to_float(static_cast<std::uint8_t>(b));
  }
  return values;
}();

inline constexpr std::array<float, 256> kE5M2Values = [] {
  std::array<float, 256> values{};
  for (std::size_t b = 0; b < 256; ++b) {
    values[b] = e5m2_to_float(static_cast<std::uint8_t>(b));
  }
  return values;
}();

}  // namespace llmpress::float_bits

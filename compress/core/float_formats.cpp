#include "compress/core/float_formats.h"

#include <array>
#include <bit>

#include "compress/core/float_bits.h"

namespace llmpress {
namespace {

constexpr std::array<float, 8> kE2M1 = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

}  // namespace

std::uint16_t f16_from_float(float x) { return float_bits::f16_from_float(x); }
float f16_to_float(std::uint16_t h) { return float_bits::f16_to_float(h); }
std::uint16_t bf16_from_float(float x) {
  return float_bits::bf16_from_float(x);
}
float bf16_to_float(std::uint16_t h) { return float_bits::bf16_to_float(h); }

std::uint8_t e4m3_from_float(float x) { return float_bits::e4m3_from_float(x); }
std::uint8_t e4m3_from_float_unclamped(float x) {
  return float_bits::e4m3_from_float_unclamped(x);
}
float e4m3_to_float(std::uint8_t b) { return float_bits::kE4M3Values[b]; }
std::uint8_t e5m2_from_float(float x) { return float_bits::e5m2_from_float(x); }
float e5m2_to_float(std::uint8_t b) { return float_bits::kE5M2Values[b]; }

std::uint8_t e2m1_from_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  // E2M1 has no NaN; it saturates like every other value beyond 6.
  std::uint32_t code = 7;
  if (magnitude < kE2M1Max) {
    code = float_bits::encode_magnitude<2, 1>(bits & 0x7fffffffu);
  }
  return static_cast<std::uint8_t>(((bits >> 28) & 0x8u) | code);
}

float e2m1_to_float(std::uint8_t code) {
  const float value = kE2M1[code & 7u];
  return (code & 8u) != 0 ? -value : value;
}

float e8m0_to_float(std::uint8_t e) {
  if (e == 0xff) return std::bit_cast<float>(0x7fc00000u);
  // 2^-127 is a subnormal float: half of the smallest normal's mantissa.
  return std::bit_cast<float>(e == 0 ? 0x00400000u
                                     : static_cast<std::uint32_t>(e) << 23);
}

}  // namespace llmpress

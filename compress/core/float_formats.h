// Exact scalar conversions between float and the narrow formats: round to
// nearest, ties to even; subnormals kept; NaN stays NaN (quiet).
//   f16   1|5|10  IEEE 754 binary16       bf16  1|8|7
//   E4M3  1|4|3   bias 7, no infinity, 0x7f NaN; E4M3FN of OCP FP8 v1.0
//   E5M2  1|5|2   bias 15, with infinity
//   E8M0  8       2^(e-127), 0xff NaN       E2M1  1|2|1  0 .5 1 1.5 2 3 4 6
#pragma once

#include <cstdint>

namespace llmpress {

std::uint16_t f16_from_float(float x);
float f16_to_float(std::uint16_t h);
std::uint16_t bf16_from_float(float x);
float bf16_to_float(std::uint16_t h);

// Clamped to +-448 first, so that no finite value becomes NaN.
std::uint8_t e4m3_from_float(float x);
// As the hardware cast does it: a value that rounds beyond 448 becomes NaN.
std::uint8_t e4m3_from_float_unclamped(float x);
float e4m3_to_float(std::uint8_t b);
// A value that rounds beyond 57344 becomes infinity.
std::uint8_t e5m2_from_float(float x);
float e5m2_to_float(std::uint8_t b);

// Code 0..15 of the nearest E2M1 value (ties to the even code), saturating
// at 6.
std::uint8_t e2m1_from_float(float x);
float e2m1_to_float(std::uint8_t code);
float e8m0_to_float(std::uint8_t e);

inline constexpr float kE4M3Max = 448.0f;
inline constexpr float kE5M2Max = 57344.0f;
inline constexpr float kE2M1Max = 6.0f;

}  // namespace llmpress

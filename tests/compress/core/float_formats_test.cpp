#include "compress/core/float_formats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// A format as its definition: sign, exponent and mantissa bits, IEEE bias.
struct Format {
  const char* name;
  int exponent_bits, mantissa_bits;
  bool has_infinity;  // otherwise only the all-ones code is NaN
  std::function<float(std::uint32_t)> decode;
  std::function<std::uint32_t(float)> encode;

  int width() const { return 1 + exponent_bits + mantissa_bits; }
  std::uint32_t sign_bit() const { return 1u << (width() - 1); }
};

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {
      {"f16", 5, 10, true,
       [](std::uint32_t c) {
         return f16_to_float(static_cast<std::uint16_t>(c));
       },
       f16_from_float},
      {"bf16", 8, 7, true,
       [](std::uint32_t c) {
         return bf16_to_float(static_cast<std::uint16_t>(c));
       },
       bf16_from_float},
      {"e4m3", 4, 3, false,
       [](std::uint32_t c) {
         return e4m3_to_float(static_cast<std::uint8_t>(c));
       },
       e4m3_from_float_unclamped},
      {"e5m2", 5, 2, true,
       [](std::uint32_t c) {
         return e5m2_to_float(static_cast<std::uint8_t>(c));
       },
       e5m2_from_float},
  };
  return all;
}

// The value of a code by the formula of the standard, in double.
double value_by_definition(const Format& f, std::uint32_t code) {
  const std::uint32_t magnitude = code & (f.sign_bit() - 1);
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const auto exponent = static_cast<int>(magnitude >> f.mantissa_bits);
  const double mantissa = magnitude & ((1u << f.mantissa_bits) - 1);
  const double sign = (code & f.sign_bit()) != 0 ? -1 : 1;
  const int top = (1 << f.exponent_bits) - 1;
  if (f.has_infinity && exponent == top) {
    return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
  }
  if (!f.has_infinity && magnitude == f.sign_bit() - 1) return std::nan("");
  if (exponent == 0) {
    return sign * std::ldexp(mantissa, 1 - bias - f.mantissa_bits);
  }
  return sign * std::ldexp(mantissa + (1 << f.mantissa_bits),
                           exponent - bias - f.mantissa_bits);
}

TEST(FloatFormats, DecodeEveryCodeAsTheStandardDefinesIt) {
  for (const Format& f : formats()) {
    for (std::uint32_t code = 0; code < (1u << f.width()); ++code) {
      const double wanted = value_by_definition(f, code);
      const float found = f.decode(code);
      if (std::isnan(wanted)) {
        EXPECT_TRUE(std::isnan(found)) << f.name << " " << code;
      } else {
        EXPECT_EQ(found, wanted) << f.name << " " << code;
        EXPECT_EQ(std::signbit(found), (code & f.sign_bit()) != 0);
      }
    }
  }
}

TEST(FloatFormats, EncodeEveryDecodedCodeToItself) {
  for (const Format& f : formats()) {
    for (std::uint32_t code = 0; code < (1u << f.width()); ++code) {
      const float value = f.decode(code);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(f.decode(f.encode(value)))) << f.name;
      } else {
        EXPECT_EQ(f.encode(value), code) << f.name;
      }
    }
  }
}

TEST(FloatFormats, RoundHalfwayPointsToTheEvenCodeAndTheirNeighboursAway) {
  for (const Format& f : formats()) {
    for (std::uint32_t code = 0; code + 1 < f.sign_bit(); ++code) {
      const double low = value_by_definition(f, code);
      const double high = value_by_definition(f, code + 1);
      if (!std::isfinite(low) || !std::isfinite(high)) break;
      const double middle = (low + high) / 2;
      const auto half = static_cast<float>(middle);
      ASSERT_EQ(half, middle);  // floats have bits to spare for it
      const std::uint32_t even = code % 2 == 0 ? code : code + 1;
      EXPECT_EQ(f.encode(half), even) << f.name << " " << code;
      EXPECT_EQ(f.encode(-half), even | f.sign_bit()) << f.name << " " << code;
      EXPECT_EQ(f.encode(std::nextafter(half, 0.0f)), code) << f.name;
      EXPECT_EQ(f.encode(std::nextafter(half, kInf)), code + 1) << f.name;
    }
  }
}

// Against a search for the nearest value, over floats of every exponent.
TEST(FloatFormats, EncodeRandomFloatsToTheNearestValue) {
  Rng rng(3);
  for (const Format& f : formats()) {
    for (int n = 0; n < 20000; ++n) {
      const auto x =
          std::bit_cast<float>(static_cast<std::uint32_t>(rng.next()));
      const std::uint32_t code = f.encode(x);
      const double value = value_by_definition(f, code);
      if (!std::isfinite(x) || !std::isfinite(value)) continue;
      EXPECT_EQ(std::signbit(x), (code & f.sign_bit()) != 0);
      const double distance = std::abs(value - x);
      for (const std::uint32_t other : {code - 1, code + 1}) {
        const double neighbour = value_by_definition(f, other);
        if ((other & f.sign_bit()) != (code & f.sign_bit())) continue;
        if (!std::isfinite(neighbour)) continue;
        EXPECT_LE(distance, std::abs(neighbour - x)) << f.name << " " << x;
      }
    }
  }
}

TEST(FloatFormats, OverflowToInfinityOrNanAtTheRoundingBoundary) {
  EXPECT_EQ(f16_from_float(65519.996f), 0x7bff);
  EXPECT_EQ(f16_from_float(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_float(-3e38f), 0xfc00);
  EXPECT_EQ(f16_from_float(kInf), 0x7c00);
  EXPECT_EQ(bf16_from_float(kInf), 0x7f80);
  EXPECT_EQ(bf16_from_float(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(e5m2_from_float(61439.0f), 0x7b);
  EXPECT_EQ(e5m2_from_float(61440.0f), 0x7c);
  EXPECT_EQ(e5m2_from_float(-kInf), 0xfc);
  EXPECT_EQ(e4m3_from_float_unclamped(464.0f), 0x7e);  // tie: even is 448
  EXPECT_EQ(e4m3_from_float_unclamped(464.1f), 0x7f);
  EXPECT_EQ(e4m3_from_float_unclamped(kInf), 0x7f);
  EXPECT_EQ(e4m3_from_float_unclamped(-1e30f), 0xff);
}

TEST(FloatFormats, KeepNanAsAQuietNanWithItsSign) {
  const auto signalling = std::bit_cast<float>(0xff800001u);
  EXPECT_EQ(f16_from_float(signalling) & 0xfe00, 0xfe00);
  EXPECT_EQ(bf16_from_float(signalling) & 0xffc0, 0xffc0);
  EXPECT_EQ(e4m3_from_float(signalling), 0xff);
  EXPECT_EQ(e5m2_from_float(signalling), 0xfe);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(f16_to_float(0x7c01)), 0x7fc02000u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(bf16_to_float(0x7f81)), 0x7fc10000u);
}

// Bytes that ml_dtypes and PyTorch write for these values.
TEST(FloatFormats, AgreeWithPublishedBytesOfE4M3AndE5M2) {
  const std::vector<std::pair<float, int>> e4m3 = {
      {0.1f, 0x1d},          {0.333333f, 0x2b}, {-1.5f, 0xbc},
      {1.0625f, 0x38},       {1.1875f, 0x3a},   {447.0f, 0x7e},
      {448.0f, 0x7e},        {463.9f, 0x7e},    {464.0f, 0x7e},
      {464.1f, 0x7f},        {480.0f, 0x7f},    {0.001953125f, 0x01},
      {0.0009765625f, 0x00}, {0.00098f, 0x01},  {0.0f, 0x00},
      {-0.0f, 0x80}};
  for (const auto& [x, byte] : e4m3) {
    EXPECT_EQ(e4m3_from_float_unclamped(x), byte) << x;
  }
  const std::vector<std::pair<float, int>> e5m2 = {
      {0.1f, 0x2e},     {0.333333f, 0x35}, {-1.5f, 0xbe},    {1.125f, 0x3c},
      {1.375f, 0x3e},   {57344.0f, 0x7b},  {61439.0f, 0x7b}, {61440.0f, 0x7c},
      {0x1p-16f, 0x01}, {0x1p-17f, 0x00},  {1.6e-5f, 0x01}};
  for (const auto& [x, byte] : e5m2) EXPECT_EQ(e5m2_from_float(x), byte) << x;
}

TEST(FloatFormats, ClampFiniteAndInfiniteValuesToTheLargestE4M3) {
  for (const float x : {448.0f, 464.1f, 1e30f, kInf}) {
    EXPECT_EQ(e4m3_from_float(x), 0x7e) << x;
    EXPECT_EQ(e4m3_from_float(-x), 0xfe) << x;
  }
  EXPECT_EQ(e4m3_from_float(std::nanf("")), 0x7f);
}

TEST(FloatFormats, RoundE2M1ToNearestWithTiesToTheEvenCode) {
  const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (std::uint8_t code = 0; code < 8; ++code) {
    EXPECT_EQ(e2m1_to_float(code), values[code]);
    EXPECT_EQ(e2m1_to_float(static_cast<std::uint8_t>(code + 8)),
              -values[code]);
    EXPECT_EQ(e2m1_from_float(values[code]), code);
    EXPECT_EQ(e2m1_from_float(-values[code]), code + 8);
    if (code == 7) break;
    const float middle = (values[code] + values[code + 1]) / 2;
    EXPECT_EQ(e2m1_from_float(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(e2m1_from_float(std::nextafter(middle, 9.0f)), code + 1);
    EXPECT_EQ(e2m1_from_float(std::nextafter(middle, -9.0f)), code);
  }
  EXPECT_EQ(e2m1_from_float(1e30f), 7);
  EXPECT_EQ(e2m1_from_float(-kInf), 15);
}

TEST(FloatFormats, DecodeE8M0AsPowersOfTwo) {
  for (int e = 0; e < 255; ++e) {
    EXPECT_EQ(e8m0_to_float(static_cast<std::uint8_t>(e)),
              std::ldexp(1.0, e - 127));
  }
  EXPECT_TRUE(std::isnan(e8m0_to_float(255)));
}

}  // namespace
}  // namespace llmpress

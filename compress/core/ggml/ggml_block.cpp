// Layouts and decoding; octets are in block_octets.cpp.
#include "compress/core/ggml/ggml_block.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"

namespace llmpress {

const std::array<std::int8_t, 16> kIq4Values{
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const std::array<std::int8_t, 16> kDoubledE2M1{0, 1,  2,  3,  4,  6,  8,  12,
                                               0, -1, -2, -3, -4, -6, -8, -12};

namespace {

constexpr std::int8_t kIq1Values[]{-7, 1, 9, -9, -1, 7};  // eighths
constexpr std::int8_t kIq2Values[]{8, 25, 43, -8, -25, -43};
constexpr std::int8_t kIq3XxsValues[]{4,  12,  20,  28,  36,  44,  52,  62,
                                      -4, -12, -20, -28, -36, -44, -52, -62};
constexpr std::int8_t kIq3SValues[]{1,  3,  5,  7,  9,  11,  13,  15,
                                    -1, -3, -5, -7, -9, -11, -13, -15};

GgmlLayout grid_layout(GgmlType type, std::size_t step,
                       std::span<const std::int8_t> values, int most_scale,
                       float unit) {
  return {.type = type,
          .step = step,
          .levels = static_cast<int>(values.size()),
          .zero = 0,
          .table = values.data(),
          .least_scale = 0,
          .most_scale = most_scale,
          .odd_unit = unit};
}

const std::array kLayouts{
    GgmlLayout{GgmlType::kQ4_0, 32, 16, 8},
    GgmlLayout{GgmlType::kQ4_1, 32, 16, 0, true},
    GgmlLayout{GgmlType::kQ5_0, 32, 32, 16},
    GgmlLayout{GgmlType::kQ5_1, 32, 32, 0, true},
    GgmlLayout{GgmlType::kQ8_0, 32, 256, 128},
    GgmlLayout{GgmlType::kQ2_K, 16, 4, 0, true, nullptr, 0, 15},
    GgmlLayout{GgmlType::kQ3_K, 16, 8, 4, false, nullptr, -32, 31},
    GgmlLayout{GgmlType::kQ4_K, 32, 16, 0, true, nullptr, 0, 63},
    GgmlLayout{GgmlType::kQ5_K, 32, 32, 0, true, nullptr, 0, 63},
    GgmlLayout{GgmlType::kQ6_K, 16, 64, 32, false, nullptr, -128, 127},
    GgmlLayout{GgmlType::kIq4Nl, 32, 16, 0, false, kIq4Values.data()},
    GgmlLayout{GgmlType::kIq4Xs, 32, 16, 0, false, kIq4Values.data(), -32, 31},
    GgmlLayout{GgmlType::kTq1_0, 256, 3, 1},
    GgmlLayout{GgmlType::kTq2_0, 256, 4, 1},
    GgmlLayout{GgmlType::kMxfp4, 32, 16, 0, false, kDoubledE2M1.data(), 0, 255},
    GgmlLayout{GgmlType::kNvfp4, 16, 16, 0, false, kDoubledE2M1.data(), 0, 255},
    grid_layout(GgmlType::kIq1S, 32, kIq1Values, 7, 0.125f),
    grid_layout(GgmlType::kIq1M, 16, kIq1Values, 7, 0.125f),
    grid_layout(GgmlType::kIq2Xxs, 32, kIq2Values, 15, 0.125f),
    grid_layout(GgmlType::kIq2Xs, 16, kIq2Values, 15, 0.125f),
    grid_layout(GgmlType::kIq2S, 16, kIq2Values, 15, 0.125f),
    grid_layout(GgmlType::kIq3Xxs, 32, kIq3XxsValues, 15, 0.25f),
    grid_layout(GgmlType::kIq3S, 32, kIq3SValues, 15, 1.0f),
};

}  // namespace

const GgmlLayout& layout(GgmlType type) {
  for (const GgmlLayout& row : kLayouts) {
    if (row.type == type) return row;
  }
  fail(ErrorCode::kUnsupported,
       "weights of type {} are not read: it is what llama.cpp rounds inputs to",
       facts(type).name);
}

float ggml_e8m0(std::uint8_t code) {
  return std::ldexp(1.0f, static_cast<int>(code) - 128);
}

float ggml_ue4m3(std::uint8_t code) {
  if (code == 0 || code == 0x7f) return 0.0f;
  const int exponent = code >> 3 & 15, fraction = code & 7;
  return exponent == 0 ? std::ldexp(static_cast<float>(fraction), -10)
                       : std::ldexp(1.0f + static_cast<float>(fraction) / 8,
                                    exponent - 8);
}

int value_of(const GgmlLayout& layout, std::uint8_t code) {
  return layout.table != nullptr ? layout.table[code]
                                 : static_cast<int>(code) - layout.zero;
}

float scale_of(const GgmlLayout& layout, const GgmlBlock& block,
               std::size_t j) {
  const std::int16_t code = block.scale_codes[j];
  if (layout.type == GgmlType::kMxfp4) {
    return ggml_e8m0(static_cast<std::uint8_t>(code));
  }
  if (layout.type == GgmlType::kNvfp4) {
    return ggml_ue4m3(static_cast<std::uint8_t>(code));
  }
  if (layout.odd_unit != 0) {
    return block.d * static_cast<float>(2 * code + 1) * layout.odd_unit;
  }
  return layout.most_scale == 1 ? block.d : block.d * static_cast<float>(code);
}

float minimum_of(const GgmlLayout& layout, const GgmlBlock& block,
                 std::size_t j) {
  if (!layout.minima) return 0;
  return layout.most_scale == 1
             ? block.dmin
             : block.dmin * static_cast<float>(block.min_codes[j]);
}

namespace {

float half_at(const std::byte* at) {
  std::uint16_t half;
  std::memcpy(&half, at, sizeof half);
  return f16_to_float(half);
}

// The two that are read most.
void decode_q4_0(const std::byte* block, std::span<float> out) {
  for (std::size_t at = 0; at < out.size(); at += 32, block += 18) {
    const float d = half_at(block);
    for (std::size_t i = 0; i < 16; ++i) {
      const int octet = std::to_integer<int>(block[2 + i]);
      out[at + i] = d * static_cast<float>((octet & 15) - 8);
      out[at + 16 + i] = d * static_cast<float>((octet >> 4) - 8);
    }
  }
}

void decode_q8_0(const std::byte* block, std::span<float> out) {
  for (std::size_t at = 0; at < out.size(); at += 32, block += 34) {
    const float d = half_at(block);
    for (std::size_t i = 0; i < 32; ++i) {
      out[at + i] = d * static_cast<float>(static_cast<std::int8_t>(
                            std::to_integer<std::uint8_t>(block[2 + i])));
    }
  }
}

}  // namespace

void decode_ggml(GgmlType type, std::span<const std::byte> bytes,
                 std::span<float> out) {
  const GgmlTypeFacts& f = facts(type);
  if (f.plain) {
    decode_floats(*f.plain, bytes, out);
    return;
  }
  assert(bytes.size() / f.bytes == out.size() / f.elements);
  if (type == GgmlType::kQ4_0) return decode_q4_0(bytes.data(), out);
  if (type == GgmlType::kQ8_0) return decode_q8_0(bytes.data(), out);
  const GgmlLayout& l = layout(type);
  for (std::size_t at = 0, b = 0; at < out.size(); at += f.elements, ++b) {
    const GgmlBlock block =
        unpack_ggml_block(type, bytes.subspan(b * f.bytes, f.bytes));
    for (std::size_t j = 0; j < f.elements / l.step; ++j) {
      const float scale = scale_of(l, block, j);
      const float minimum = minimum_of(l, block, j);
      for (std::size_t i = j * l.step; i < (j + 1) * l.step; ++i) {
        const auto value = static_cast<float>(value_of(l, block.codes[i]));
        out[at + i] = l.minima ? scale * value - minimum : scale * value;
      }
    }
  }
}

}  // namespace llmpress

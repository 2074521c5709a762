// A block of a GGUF tensor taken apart: codes, and scales as they are stored.
// With sub-blocks of `step` elements,
//   w[i] = scale(j) value(code[i]) - minimum(j),      j = i / step
//   scale(j) = d scale_code[j],  minimum(j) = dmin min_code[j]
// where value() is code - zero or a table's. Layouts (little-endian; n nibbles
// "of 32" are the low halves of 16 octets, then the high ones):
//
//   q4_0    | f16 d | 16 octets, nibbles of 32 |                value = code - 8
//   q4_1    | f16 d | f16 m | nibbles |                minimum = -m, value = code
//   q5_0    | f16 d | u32 fifth bits | nibbles |                       code - 16
//   q5_1    | f16 d | f16 m | u32 fifth bits | nibbles |
//   q8_0    | f16 d | 32 i8 |
//   q2_K    | 16 x (u4 scale, u4 minimum) | 64 octets of crumbs | f16 d | f16 dmin |
//   q3_K    | 32 octets of third bits | 64 of crumbs | 16 x u6 | f16 d |  code - 4
//   q4_K    | f16 d | f16 dmin | 8 x (u6, u6) | 128 octets of nibbles |
//   q5_K    | f16 d | f16 dmin | 8 x (u6, u6) | 32 of fifth bits | 128 |
//   q6_K    | 128 octets of nibbles | 64 of high crumbs | 16 i8 | f16 d | code - 32
//   iq4_nl  | f16 d | nibbles |                              value = a table's
//   iq4_xs  | f16 d | 8 x u6 | 128 octets of nibbles |
//   tq1_0   | 48 octets of 5 trits | 4 of 4 trits | f16 d |             code - 1
//   tq2_0   | 64 octets of crumbs | f16 d |                             code - 1
//   mxfp4   | e8m0 | nibbles |                                     E2M1, doubled
//   nvfp4   | 4 x ue4m3 | 4 x 8 octets, nibbles of 16 |
//   iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s: points of a grid, in
//   grid_octets.h. Of these a code is a level, in the upper half of the codes
//   with a minus or, of iq1_*, an eighth less; scale(j) = d (2 scale_code[j] + 1)
//   unit
// (ggml-common.h and the functions dequantize_row_* of ggml-quants.c.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/core/ggml/ggml_type.h"

namespace llmpress {

inline constexpr std::size_t kGgmlMostElements = 256, kGgmlMostSubBlocks = 16;

struct GgmlBlock {
  float d = 0, dmin = 0;  // values of f16, but of mxfp4 and nvfp4: 1, 0
  // Of mxfp4 and nvfp4 the octets of the scales; signed where the type has it.
  std::array<std::int16_t, kGgmlMostSubBlocks> scale_codes{};
  std::array<std::uint8_t, kGgmlMostSubBlocks> min_codes{};
  std::array<std::uint8_t, kGgmlMostElements> codes{};  // 0 .. levels - 1
};

// How the codes of a type are read.
struct GgmlLayout {
  GgmlType type;
  std::size_t step;  // elements of a sub-block
  int levels;        // codes are 0 .. levels - 1
  int zero;          // value = code - zero, unless there is a table
  bool minima = false;
  const std::int8_t* table = nullptr;  // [levels], rising or E2M1's order
  // Codes of the scales of sub-blocks are in [least_scale, most_scale].
  int least_scale = 1, most_scale = 1;
  float odd_unit = 0;  // 0: scales are no odd multiples
};

// Throws Error(kUnsupported) for a type of which decodes is false, or that is
// no block type.
const GgmlLayout& layout(GgmlType type);

int value_of(const GgmlLayout& layout, std::uint8_t code);
float scale_of(const GgmlLayout& layout, const GgmlBlock& block, std::size_t j);
float minimum_of(const GgmlLayout& layout, const GgmlBlock& block,
                 std::size_t j);

// `bytes` is one block. pack(unpack(bytes)) == bytes but for trits that no
// writer makes and bits that mean nothing.
GgmlBlock unpack_ggml_block(GgmlType type, std::span<const std::byte> bytes);
void pack_ggml_block(GgmlType type, const GgmlBlock& block,
                     std::span<std::byte> bytes);

// Whole blocks or plain numbers, out.size() elements of them. Throws
// Error(kUnsupported) for a type that this version cannot decode.
void decode_ggml(GgmlType type, std::span<const std::byte> bytes,
                 std::span<float> out);

// Values of E8M0 and unsigned E4M3 as the types have them: half of what the
// code says, because E2M1's values are doubled.
float ggml_e8m0(std::uint8_t code);
float ggml_ue4m3(std::uint8_t code);

extern const std::array<std::int8_t, 16> kIq4Values, kDoubledE2M1;

}  // namespace llmpress

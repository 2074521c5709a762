// Types of tensors in GGUF files: numbers, and blocks of codes with scales of
// their own. A row of a matrix is a whole number of blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "compress/core/dtype.h"

namespace llmpress {

// The numbers are those of the files (ggml.h, enum ggml_type).
enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIq2Xxs = 16,
  kIq2Xs = 17,
  kIq3Xxs = 18,
  kIq1S = 19,
  kIq4Nl = 20,
  kIq3S = 21,
  kIq2S = 22,
  kIq4Xs = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIq1M = 29,
  kBF16 = 30,
  kTq1_0 = 34,
  kTq2_0 = 35,
  kMxfp4 = 39,
  kNvfp4 = 40,
};

struct GgmlTypeFacts {
  GgmlType type;
  std::string_view name;  // "q4_K", as other programs print it
  std::size_t elements;   // of a block; 1 for plain numbers
  std::size_t bytes;      // of a block
  // Plain numbers: the type of elements that we call so.
  std::optional<DType> plain{};
  bool decodes = true;  // whether decode_ggml_blocks() knows it
};

std::span<const GgmlTypeFacts> all_ggml_types();
const GgmlTypeFacts& facts(GgmlType type);
std::optional<GgmlType> ggml_type_of_id(std::uint32_t id);
// By name in any case: "q4_0", "Q4_K".
std::optional<GgmlType> parse_ggml_type(std::string_view name);
// The type of plain numbers; nullopt where GGUF has none (U8, BOOL, F8 ...).
std::optional<GgmlType> ggml_type_of(DType dtype);

}  // namespace llmpress

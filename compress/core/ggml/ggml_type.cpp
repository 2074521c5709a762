#include "compress/core/ggml/ggml_type.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <stdexcept>

namespace llmpress {
namespace {

constexpr std::size_t kSuper = 256;  // elements of a super-block

constexpr std::array kTypes{
    GgmlTypeFacts{GgmlType::kF32, "f32", 1, 4, DType::kF32},
    GgmlTypeFacts{GgmlType::kF16, "f16", 1, 2, DType::kF16},
    GgmlTypeFacts{GgmlType::kQ4_0, "q4_0", 32, 2 + 16},
    GgmlTypeFacts{GgmlType::kQ4_1, "q4_1", 32, 2 + 2 + 16},
    GgmlTypeFacts{GgmlType::kQ5_0, "q5_0", 32, 2 + 4 + 16},
    GgmlTypeFacts{GgmlType::kQ5_1, "q5_1", 32, 2 + 2 + 4 + 16},
    GgmlTypeFacts{GgmlType::kQ8_0, "q8_0", 32, 2 + 32},
    GgmlTypeFacts{GgmlType::kQ8_1, "q8_1", 32, 2 + 2 + 32, {}, false},
    GgmlTypeFacts{GgmlType::kQ2_K, "q2_K", kSuper, 16 + 64 + 2 + 2},
    GgmlTypeFacts{GgmlType::kQ3_K, "q3_K", kSuper, 32 + 64 + 12 + 2},
    GgmlTypeFacts{GgmlType::kQ4_K, "q4_K", kSuper, 2 + 2 + 12 + 128},
    GgmlTypeFacts{GgmlType::kQ5_K, "q5_K", kSuper, 2 + 2 + 12 + 32 + 128},
    GgmlTypeFacts{GgmlType::kQ6_K, "q6_K", kSuper, 128 + 64 + 16 + 2},
    GgmlTypeFacts{GgmlType::kQ8_K, "q8_K", kSuper, 4 + 256 + 32, {}, false},
    GgmlTypeFacts{GgmlType::kIq2Xxs, "iq2_xxs", kSuper, 2 + 64},
    GgmlTypeFacts{GgmlType::kIq2Xs, "iq2_xs", kSuper, 2 + 64 + 8},
    GgmlTypeFacts{GgmlType::kIq3Xxs, "iq3_xxs", kSuper, 2 + 96},
    GgmlTypeFacts{GgmlType::kIq1S, "iq1_s", kSuper, 2 + 32 + 16},
    GgmlTypeFacts{GgmlType::kIq4Nl, "iq4_nl", 32, 2 + 16},
    GgmlTypeFacts{GgmlType::kIq3S, "iq3_s", kSuper, 2 + 108},
    GgmlTypeFacts{GgmlType::kIq2S, "iq2_s", kSuper, 2 + 64 + 16},
    GgmlTypeFacts{GgmlType::kIq4Xs, "iq4_xs", kSuper, 2 + 2 + 4 + 128},
    GgmlTypeFacts{GgmlType::kI8, "i8", 1, 1, DType::kI8},
    GgmlTypeFacts{GgmlType::kI16, "i16", 1, 2, DType::kI16},
    GgmlTypeFacts{GgmlType::kI32, "i32", 1, 4, DType::kI32},
    GgmlTypeFacts{GgmlType::kI64, "i64", 1, 8, DType::kI64},
    GgmlTypeFacts{GgmlType::kF64, "f64", 1, 8, DType::kF64},
    GgmlTypeFacts{GgmlType::kIq1M, "iq1_m", kSuper, 32 + 16 + 8},
    GgmlTypeFacts{GgmlType::kBF16, "bf16", 1, 2, DType::kBF16},
    GgmlTypeFacts{GgmlType::kTq1_0, "tq1_0", kSuper, 48 + 4 + 2},
    GgmlTypeFacts{GgmlType::kTq2_0, "tq2_0", kSuper, 64 + 2},
    GgmlTypeFacts{GgmlType::kMxfp4, "mxfp4", 32, 1 + 16},
    GgmlTypeFacts{GgmlType::kNvfp4, "nvfp4", 64, 4 + 32},
};

bool same_letters(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::span<const GgmlTypeFacts> all_ggml_types() { return kTypes; }

const GgmlTypeFacts& facts(GgmlType type) {
  for (const GgmlTypeFacts& row : kTypes) {
    if (row.type == type) return row;
  }
  throw std::logic_error("facts: a GGUF type without a row");
}

std::optional<GgmlType> ggml_type_of_id(std::uint32_t id) {
  for (const GgmlTypeFacts& row : kTypes) {
    if (static_cast<std::uint32_t>(row.type) == id) return row.type;
  }
  return std::nullopt;
}

std::optional<GgmlType> parse_ggml_type(std::string_view name) {
  for (const GgmlTypeFacts& row : kTypes) {
    if (same_letters(row.name, name)) return row.type;
  }
  return std::nullopt;
}

std::optional<GgmlType> ggml_type_of(DType dtype) {
  for (const GgmlTypeFacts& row : kTypes) {
    if (row.plain == dtype) return row.type;
  }
  return std::nullopt;
}

}  // namespace llmpress

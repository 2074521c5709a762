#include "recipes/schemes.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "recipes/recipe_parser.h"

namespace llmpress {
namespace {

constexpr WeightScheme int_groups(int bits, std::int64_t group_size,
                                  bool symmetric) {
  WeightScheme scheme;
  scheme.bits = bits;
  scheme.range = bits < 4 ? RangeSearch::kMse : RangeSearch::kMinMax;
  scheme.group_size = group_size;
  scheme.symmetric = symmetric;
  // One scale a row costs nothing to keep exactly.
  scheme.scale_dtype = group_size > 0 ? DType::kF16 : DType::kF32;
  return scheme;
}

// f32 scales: amax / 448 of an ordinary weight is subnormal in f16.
constexpr WeightScheme fp8(WeightType type, std::int64_t group_size,
                           std::size_t block = 0) {
  WeightScheme scheme = int_groups(8, group_size, true);
  scheme.type = type;
  scheme.scale_dtype = DType::kF32;
  scheme.block_rows = scheme.block_cols = block;
  return scheme;
}

constexpr WeightScheme four_bit(WeightType type, std::int64_t block,
                                DType scale_dtype) {
  WeightScheme scheme = int_groups(4, block, true);
  scheme.type = type;
  scheme.scale_dtype = scale_dtype;
  return scheme;
}

constexpr WeightScheme plain(DType dtype) {
  WeightScheme scheme = int_groups(dtype == DType::kF32 ? 32 : 16, 0, true);
  scheme.type = WeightType::kFloat;
  scheme.float_dtype = dtype;
  return scheme;
}

// Blocks say themselves how wide their codes and groups are.
constexpr WeightScheme blocks(GgmlType type) {
  WeightScheme scheme = int_groups(4, 0, true);
  scheme.type = WeightType::kGgml;
  scheme.ggml_type = type;
  return scheme;
}

constexpr ActivationQuant input(ActivationQuant::Kind kind, int bits,
                                ActivationQuant::Range range,
                                std::size_t group_size = 0) {
  ActivationQuant quant;
  quant.kind = kind;
  quant.bits = bits;
  quant.range = range;
  quant.group_size = group_size;
  return quant;
}

using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;
constexpr ActivationQuant kNone{};
constexpr ActivationQuant kInt8Token = input(Kind::kInt, 8, Range::kToken);
constexpr ActivationQuant kInt4Token = input(Kind::kInt, 4, Range::kToken);
constexpr ActivationQuant kFp8Token = input(Kind::kFp8, 8, Range::kToken);
constexpr ActivationQuant kFp8Group = input(Kind::kFp8, 8, Range::kGroup, 128);
constexpr ActivationQuant kFp8Static = input(Kind::kFp8, 8, Range::kStatic);

constexpr WeightScheme kNf4 = four_bit(WeightType::kNf4, 64, DType::kF32);
constexpr WeightScheme kFp4 = four_bit(WeightType::kFp4, 64, DType::kF32);
constexpr WeightScheme kMxfp4 =
    four_bit(WeightType::kMxfp4, 32, DType::kF8E8M0);
constexpr WeightScheme kNvfp4 =
    four_bit(WeightType::kNvfp4, 16, DType::kF8E4M3);

// compressed-tensors, quantization/quant_scheme.py, PRESET_SCHEMES.
constexpr SchemePreset kPresets[] = {
    {"W2A16", int_groups(2, 128, true), kNone},
    {"W3A16", int_groups(3, 128, true), kNone},
    {"W4A16", int_groups(4, 128, true), kNone},
    {"W4A16_ASYM", int_groups(4, 128, false), kNone},
    {"W5A16", int_groups(5, 128, true), kNone},
    {"W6A16", int_groups(6, 128, true), kNone},
    {"W7A16", int_groups(7, 128, true), kNone},
    {"W8A16", int_groups(8, -1, true), kNone},
    {"W8A8", int_groups(8, -1, true), kInt8Token},
    {"INT8", int_groups(8, -1, true), kInt8Token},
    {"W4A8", int_groups(4, 128, true), kInt8Token},
    {"W4A4", int_groups(4, -1, true), kInt4Token},
    {"FP8", fp8(WeightType::kFp8E4M3, 0), kFp8Static},
    {"FP8_DYNAMIC", fp8(WeightType::kFp8E4M3, -1), kFp8Token},
    {"FP8_BLOCK", fp8(WeightType::kFp8E4M3, 0, 128), kFp8Group},
    {"NVFP4A16", kNvfp4, kNone},
    {"MXFP4A16", kMxfp4, kNone},
    {"NF4", kNf4, kNone},
    {"FP4", kFp4, kNone},
    {"BF16", plain(DType::kBF16), kNone},
    {"F16", plain(DType::kF16), kNone},
};

constexpr WeightTypeFacts kTypes[] = {
    {"int", int_groups(4, 128, false)},
    {"fp8", fp8(WeightType::kFp8E4M3, -1)},
    {"fp8_e5m2", fp8(WeightType::kFp8E5M2, -1)},
    {"nf4", kNf4},
    {"fp4", kFp4},
    {"mxfp4", kMxfp4},
    {"nvfp4", kNvfp4},
    {"bf16", plain(DType::kBF16)},
    {"f16", plain(DType::kF16)},
    {"f32", plain(DType::kF32)},
    {"q4_0", blocks(GgmlType::kQ4_0)},
    {"q4_1", blocks(GgmlType::kQ4_1)},
    {"q5_0", blocks(GgmlType::kQ5_0)},
    {"q5_1", blocks(GgmlType::kQ5_1)},
    {"q8_0", blocks(GgmlType::kQ8_0)},
    {"q2_k", blocks(GgmlType::kQ2_K)},
    {"q3_k", blocks(GgmlType::kQ3_K)},
    {"q4_k", blocks(GgmlType::kQ4_K)},
    {"q5_k", blocks(GgmlType::kQ5_K)},
    {"q6_k", blocks(GgmlType::kQ6_K)},
    {"iq1_s", blocks(GgmlType::kIq1S)},
    {"iq1_m", blocks(GgmlType::kIq1M)},
    {"iq2_xxs", blocks(GgmlType::kIq2Xxs)},
    {"iq2_xs", blocks(GgmlType::kIq2Xs)},
    {"iq2_s", blocks(GgmlType::kIq2S)},
    {"iq3_xxs", blocks(GgmlType::kIq3Xxs)},
    {"iq3_s", blocks(GgmlType::kIq3S)},
    {"iq4_nl", blocks(GgmlType::kIq4Nl)},
    {"iq4_xs", blocks(GgmlType::kIq4Xs)},
    {"tq1_0", blocks(GgmlType::kTq1_0)},
    {"tq2_0", blocks(GgmlType::kTq2_0)},
};

}  // namespace

std::span<const SchemePreset> scheme_presets() { return kPresets; }

const SchemePreset* find_scheme(std::string_view name) {
  const auto* found = std::find_if(
      std::begin(kPresets), std::end(kPresets),
      [&](const SchemePreset& preset) { return preset.name == name; });
  return found == std::end(kPresets) ? nullptr : found;
}

std::vector<std::string_view> scheme_names() {
  std::vector<std::string_view> names;
  for (const SchemePreset& preset : kPresets) names.push_back(preset.name);
  return names;
}

std::span<const WeightTypeFacts> weight_types() { return kTypes; }

const WeightTypeFacts& facts_of(const WeightScheme& scheme) {
  for (const WeightTypeFacts& row : kTypes) {
    if (row.defaults.type != scheme.type) continue;
    if (row.defaults.float_dtype != scheme.float_dtype &&
        scheme.type == WeightType::kFloat) {
      continue;
    }
    if (row.defaults.ggml_type != scheme.ggml_type &&
        scheme.type == WeightType::kGgml) {
      continue;
    }
    return row;
  }
  throw std::logic_error("weight type without a row");
}

}  // namespace llmpress

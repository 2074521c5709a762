#include "compress/core/packed/scale_layout.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>
#include <variant>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr float kLargestF16 = 65504.0f, kSmallestF16 = 0x1p-24f;

// One answer for each packed type: why its scales are fixed, where they are.
struct Fixed {
  std::string_view operator()(const DenseWeight&) const {
    return "it has none";
  }
  std::string_view operator()(const GroupedIntWeight&) const { return {}; }
  std::string_view operator()(const Int8Weight&) const { return {}; }
  std::string_view operator()(const Fp8Weight&) const { return {}; }
  std::string_view operator()(const Table4Weight& w) const {
    if (w.absmax.empty()) return "they are codes of 8 bits themselves";
    return w.in % w.block_size == 0 ? std::string_view()
                                    : "a block of weights lies in two rows";
  }
  std::string_view operator()(const MicroFp4Weight& w) const {
    return w.kind == MicroFp4Kind::kMxfp4
               ? "they are powers of two"
               : "they are numbers of 8 bits themselves";
  }
  std::string_view operator()(const GgmlWeight&) const {
    return "they lie in its blocks";
  }
  std::string_view operator()(const SparseWeight& w) const {
    return w.bits == 0 ? "it has none" : std::string_view();
  }
};

ScaleLayout by_columns(std::size_t rows, std::size_t rows_each, std::size_t in,
                       std::size_t columns_each) {
  ScaleLayout groups{.rows = rows,
                     .columns = ceil_div(in, columns_each),
                     .rows_each = rows_each,
                     .column_group = std::vector<std::uint32_t>(in)};
  for (std::size_t i = 0; i < in; ++i) {
    groups.column_group[i] = static_cast<std::uint32_t>(i / columns_each);
  }
  return groups;
}

struct Groups {
  ScaleLayout operator()(const DenseWeight&) const { return {}; }
  ScaleLayout operator()(const GroupedIntWeight& w) const {
    ScaleLayout groups = by_columns(w.out, 1, w.in, w.group_size);
    if (!w.g_idx.empty()) groups.column_group = w.g_idx;
    return groups;
  }
  ScaleLayout operator()(const Int8Weight& w) const {
    const bool whole = w.scales.size() == 1 && w.out != 1;
    ScaleLayout groups =
        by_columns(whole ? 1 : w.out, whole ? w.out : 1, w.in, w.in);
    for (const std::uint32_t column : w.outlier_columns) {
      groups.column_group[column] = ScaleLayout::kNone;
    }
    return groups;
  }
  ScaleLayout operator()(const Fp8Weight& w) const {
    return by_columns(ceil_div(w.out, w.block_rows), w.block_rows, w.in,
                      w.block_cols);
  }
  ScaleLayout operator()(const Table4Weight& w) const {
    return by_columns(w.out, 1, w.in, w.block_size);
  }
  ScaleLayout operator()(const MicroFp4Weight&) const { return {}; }
  ScaleLayout operator()(const GgmlWeight&) const { return {}; }
  ScaleLayout operator()(const SparseWeight& w) const {
    return by_columns(w.out, 1, w.in, w.group_size);
  }
};

struct Scales {
  std::vector<float>* operator()(DenseWeight&) const { return nullptr; }
  std::vector<float>* operator()(GroupedIntWeight& w) const {
    return &w.scales;
  }
  std::vector<float>* operator()(Int8Weight& w) const { return &w.scales; }
  std::vector<float>* operator()(Fp8Weight& w) const { return &w.scales; }
  std::vector<float>* operator()(Table4Weight& w) const { return &w.absmax; }
  std::vector<float>* operator()(MicroFp4Weight&) const { return nullptr; }
  std::vector<float>* operator()(GgmlWeight&) const { return nullptr; }
  std::vector<float>* operator()(SparseWeight& w) const { return &w.scales; }
};

DType stored_type(const PackedWeight& weight) {
  const auto* const sparse = std::get_if<SparseWeight>(&weight);
  return sparse != nullptr ? sparse->scale_dtype : scale_type_of(weight);
}

}  // namespace

std::string_view fixed_scales(const PackedWeight& weight) {
  return std::visit(Fixed{}, weight);
}

ScaleLayout scale_layout(const PackedWeight& weight) {
  const std::string_view why = fixed_scales(weight);
  if (why.empty()) return std::visit(Groups{}, weight);
  fail(ErrorCode::kUnsupported,
       "a weight stored as {} has no scales that learn: {}", describe(weight),
       why);
}

std::vector<float> learnable_scales(const PackedWeight& weight) {
  assert(fixed_scales(weight).empty());
  // To be read.
  return *std::visit(Scales{}, const_cast<PackedWeight&>(weight));
}

void set_scales(PackedWeight& weight, std::span<const float> scales) {
  std::vector<float>& to = *std::visit(Scales{}, weight);
  assert(to.size() == scales.size());
  const DType type = stored_type(weight);
  std::ranges::copy(scales, to.begin());
  if (type == DType::kF16) {
    for (float& s : to) {
      s = std::copysign(std::clamp(std::abs(s), kSmallestF16, kLargestF16), s);
    }
  }
  round_through(type, to);
}

std::vector<float> learnable_zeros(const PackedWeight& weight) {
  const auto* const grouped = std::get_if<GroupedIntWeight>(&weight);
  return grouped == nullptr ? std::vector<float>() : grouped->float_zeros;
}

void set_zeros(PackedWeight& weight, std::span<const float> zeros) {
  auto& grouped = std::get<GroupedIntWeight>(weight);
  grouped.float_zeros.assign(zeros.begin(), zeros.end());
  round_through(grouped.scale_dtype, grouped.float_zeros);
}

}  // namespace llmpress

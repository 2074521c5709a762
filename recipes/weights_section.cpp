#include "recipes/weights_section.h"

#include <bit>
#include <string>

#include "compress/core/formatted.h"
#include "recipes/schemes.h"
#include "recipes/words.h"

namespace llmpress {
namespace {

using Keys = std::initializer_list<std::string_view>;

constexpr std::int64_t kMaxGroupSize = 1 << 20;

void forbid(const Section& section, Keys keys, const std::string& message) {
  section.forbid({keys.begin(), keys.size()}, message);
}

bool is_fp8(const WeightScheme& scheme) {
  return scheme.type == WeightType::kFp8E4M3 ||
         scheme.type == WeightType::kFp8E5M2;
}

bool is_table4(const WeightScheme& scheme) {
  return scheme.type == WeightType::kNf4 || scheme.type == WeightType::kFp4;
}

// compressed-tensors says "float" and the number of bits.
WeightScheme float_of_bits(const Section& section) {
  if (!section.has("bits")) {
    section.refuse("type", "is 'float', which needs 'bits': 8, 16 or 32");
  }
  const std::int64_t bits = section.integer("bits", 0, 0, 64);
  const char* name = bits == 8    ? "fp8"
                     : bits == 16 ? "bf16"
                     : bits == 32 ? "f32"
                                  : "";
  for (const WeightTypeFacts& row : weight_types()) {
    if (row.name == name) return row.defaults;
  }
  section.refuse(
      "bits", formatted("is '{}'; a float has 8 (fp8), 16 (bf16) or 32", bits));
}

WeightScheme read_type(const Section& section, const WeightScheme& base) {
  if (!section.has("type")) return base;
  std::vector<std::string_view> names;
  for (const WeightTypeFacts& row : weight_types()) names.push_back(row.name);
  names.push_back("float");
  const std::size_t index = section.choice_index("type", names);
  const WeightScheme scheme = index + 1 == names.size()
                                  ? float_of_bits(section)
                                  : weight_types()[index].defaults;
  const bool same =
      scheme.type == base.type &&
      (scheme.type != WeightType::kFloat ||
       scheme.float_dtype == base.float_dtype) &&
      (scheme.type != WeightType::kGgml || scheme.ggml_type == base.ggml_type);
  return same ? base : scheme;
}

void read_bits(const Section& section, WeightScheme& scheme) {
  if (scheme.type == WeightType::kInt) {
    scheme.bits = static_cast<int>(section.integer("bits", scheme.bits, 2, 8));
    return;
  }
  if (scheme.type == WeightType::kGgml) {
    forbid(section, {"bits"}, "does not apply to block types of GGUF");
    return;
  }
  if (section.integer("bits", scheme.bits, 1, 64) != scheme.bits) {
    section.refuse("bits", formatted("does not fit the type: {} has {}",
                                     facts_of(scheme).name, scheme.bits));
  }
}

void read_fp8_blocks(const Section& section, WeightScheme& scheme) {
  const YamlNode* node = section.find("block_size");
  if (node == nullptr) {
    if (section.has("group_size")) scheme.block_rows = scheme.block_cols = 0;
    return;
  }
  forbid(section, {"group_size"}, "and 'block_size' exclude each other");
  const auto side = [&](const YamlNode& item) -> std::size_t {
    const YamlNode map{.kind = YamlNode::Kind::kMap,
                       .keys = {{.name = "block_size"}},
                       .items = {item},
                       .position = item.position};
    return Section(map, "weights").count("block_size", 0, 1, 1 << 20);
  };
  if (node->kind != YamlNode::Kind::kList) {
    scheme.block_rows = scheme.block_cols = side(*node);
  } else if (node->items.size() == 2) {
    scheme.block_rows = side(node->items[0]);
    scheme.block_cols = side(node->items[1]);
  } else {
    section.refuse("block_size", "wants one number or [rows, cols]");
  }
  scheme.group_size = 0;
}

void read_int(const Section& section, WeightScheme& scheme) {
  forbid(section, {"block_size", "double_quant"},
         "does not apply to integers; their groups are 'group_size'");
  if (section.has("group_size")) {
    scheme.group_size = section.integer("group_size", 0, -1, kMaxGroupSize);
    scheme.scale_dtype = scheme.group_size > 0 ? DType::kF16 : DType::kF32;
  }
  scheme.symmetric = section.boolean("symmetric", scheme.symmetric);
  // Few levels waste most of a range that outliers stretch.
  const RangeSearch usual =
      scheme.bits < 4 ? RangeSearch::kMse : RangeSearch::kMinMax;
  scheme.range = section.choice<RangeSearch>("range", usual, kRangeSearchWords);
  scheme.scale_dtype = section.choice<DType>("scale_dtype", scheme.scale_dtype,
                                             kFloatDTypeWords);
  if (scheme.range != RangeSearch::kMse) {
    forbid(section, {"mse_norm"}, "needs 'range: mse'");
  }
  scheme.mse_norm = section.number("mse_norm", scheme.mse_norm, 0.1, 10);
}

void read_fp8(const Section& section, WeightScheme& scheme) {
  forbid(section, {"double_quant", "range", "mse_norm"},
         "does not apply to fp8");
  if (section.has("group_size")) {
    scheme.group_size = section.integer("group_size", 0, -1, 0);
  }
  read_fp8_blocks(section, scheme);
  scheme.scale_dtype = section.choice<DType>("scale_dtype", scheme.scale_dtype,
                                             kFloatDTypeWords);
}

void read_table4(const Section& section, WeightScheme& scheme) {
  forbid(section, {"group_size", "range", "mse_norm", "scale_dtype"},
         formatted("does not apply to {}; its blocks are 'block_size'",
                   facts_of(scheme).name));
  const std::size_t block = section.count(
      "block_size", static_cast<std::size_t>(scheme.group_size), 32, 4096);
  if (!std::has_single_bit(block)) {
    section.refuse(
        "block_size",
        formatted("is '{}'; wants a power of two from 32 to 4096", block));
  }
  scheme.group_size = static_cast<std::int64_t>(block);
  scheme.double_quant = section.boolean("double_quant", scheme.double_quant);
}

}  // namespace

WeightScheme read_weights(const YamlNode& node, const WeightScheme& base) {
  const Section section(node, "weights");
  WeightScheme scheme = read_type(section, base);
  read_bits(section, scheme);
  if (scheme.type != WeightType::kInt && !section.boolean("symmetric", true)) {
    section.refuse("symmetric",
                   "cannot be false: only integers have zero points");
  }
  if (scheme.type == WeightType::kInt) {
    read_int(section, scheme);
  } else if (is_fp8(scheme)) {
    read_fp8(section, scheme);
  } else if (is_table4(scheme)) {
    read_table4(section, scheme);
  } else {
    forbid(section,
           {"group_size", "range", "mse_norm", "scale_dtype", "block_size",
            "double_quant"},
           formatted("does not apply to {}, which has no choice here",
                     facts_of(scheme).name));
  }
  return scheme;
}

ActivationQuant read_input(const YamlNode& node, const ActivationQuant& base) {
  using Kind = ActivationQuant::Kind;
  using Range = ActivationQuant::Range;
  const Section section(node, "input");
  ActivationQuant quant = base;
  quant.kind = section.choice<Kind>(
      "type", base.kind == Kind::kNone ? Kind::kInt : base.kind,
      kInputTypeWords);
  if (quant.kind != base.kind) quant = ActivationQuant{.kind = quant.kind};
  if (quant.kind == Kind::kNone) {
    forbid(section, {"bits", "range", "group_size", "dynamic", "symmetric"},
           "does not apply to 'type: none'");
    return quant;
  }
  quant.bits = static_cast<int>(section.integer("bits", quant.bits, 4, 8));
  if (quant.bits != 8 && (quant.bits != 4 || quant.kind == Kind::kFp8)) {
    section.refuse("bits", quant.kind == Kind::kFp8 ? "of fp8 is 8"
                                                    : "is neither 4 nor 8");
  }
  const bool dynamic =
      section.boolean("dynamic", quant.range != Range::kStatic);
  if (dynamic != (quant.range != Range::kStatic)) {
    quant.range = dynamic ? Range::kToken : Range::kStatic;
  }
  quant.range = section.choice<Range>("range", quant.range, kInputRangeWords);
  if (section.has("dynamic") && dynamic == (quant.range == Range::kStatic)) {
    section.refuse("dynamic", "contradicts 'range'");
  }
  if (quant.range == Range::kGroup) {
    quant.group_size = section.count(
        "group_size", quant.group_size == 0 ? 128 : quant.group_size, 1,
        kMaxGroupSize);
  } else {
    forbid(section, {"group_size"}, "needs 'range: group'");
    quant.group_size = 0;
  }
  quant.symmetric = section.boolean("symmetric", quant.symmetric);
  if (quant.kind == Kind::kFp8 && !quant.symmetric) {
    section.refuse("symmetric", "cannot be false: fp8 has no zero points");
  }
  return quant;
}

}  // namespace llmpress

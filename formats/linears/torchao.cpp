#include "formats/linears/torchao.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/json_check.h"
#include "formats/linears/quantization_config_json.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;
using quantization_json::json;
using Kind = ActivationQuant::Kind;
using Range = ActivationQuant::Range;

[[noreturn]] void refuse(const StoredLinear& l, const std::string& what,
                         ErrorCode code = ErrorCode::kUnsupported) {
  fail(code, "{}: torchao: {}", l.where(), what);
}

std::string part(const std::string& name) { return "._weight_" + name; }

const json& member(const StoredLinear& l, const json& object, const char* key) {
  const json* const found =
      object.is_object() ? quantization_json::find(object, key) : nullptr;
  if (found == nullptr) {
    refuse(l, formatted("its metadata has no '{}'", key),
           ErrorCode::kCorruptFile);
  }
  return *found;
}

// {"_type": "PerRow", "_data": {...}} or {"_type": "torch.dtype", "_data":
// "int4"}.
std::string type_of(const StoredLinear& l, const json& object) {
  const json& type = member(l, object, "_type");
  if (!type.is_string()) {
    refuse(l, "its metadata has a '_type' that is no text",
           ErrorCode::kCorruptFile);
  }
  return type.get<std::string>();
}

std::string word_of(const StoredLinear& l, const json& object) {
  const json& word = member(l, object, "_data");
  return word.is_string() ? word.get<std::string>() : std::string();
}

struct Description {
  std::string type{};
  json data{};
};

Description describe_weight(const StoredLinear& l) {
  const auto& all = l.reader.metadata();
  const auto at = all.find(l.name + ".weight");
  if (at == all.end()) {
    refuse(l, "__metadata__ does not describe '" + l.name + ".weight'",
           ErrorCode::kCorruptFile);
  }
  check_json_object(at->second, "__metadata__ of '" + l.name + ".weight'");
  const json root = json::parse(at->second);
  return {.type = type_of(l, root), .data = member(l, root, "_data")};
}

// --- weights -----------------------------------------------------------------

struct Block {
  std::size_t rows = 0, cols = 0;
};

// That share a scale, of W [out, in].
Block block_of(const StoredLinear& l, const Description& d, std::size_t out,
               std::size_t in) {
  const json& size = member(l, d.data, "block_size");
  const bool pair = size.is_array() && size.size() == 2 &&
                    size[0].is_number_unsigned() &&
                    size[1].is_number_unsigned();
  const Block block{pair ? size[0].get<std::size_t>() : 0,
                    pair ? size[1].get<std::size_t>() : 0};
  if (block.rows == 0 || block.cols == 0 || out % block.rows != 0 ||
      in % block.cols != 0) {
    refuse(l,
           formatted("block_size {} does not divide [{}, {}]", size.dump(), out,
                     in),
           ErrorCode::kCorruptFile);
  }
  return block;
}

void require_no_prescale(const StoredLinear& l) {
  for (const char* name :
       {"act_pre_scale", "act_quant_scale", "act_quant_zero_point"}) {
    if (l.find(part(name)) != nullptr) {
      refuse(l, formatted("inputs with '{}' are not read", name));
    }
  }
}

PackedWeight read_float8(const StoredLinear& l, const Description& d) {
  const TensorInfo& info = l.require(part("qdata"));
  const auto [out, in] = require_matrix(info);
  if (info.dtype != DType::kF8E5M2) require_dtype(info, DType::kF8E4M3);
  const Block block = block_of(l, d, out, in);
  const TensorInfo& scale = l.require(part("scale"));
  require_shape(scale, Shape{out / block.rows, in / block.cols});
  Fp8Weight w{.out = out,
              .in = in,
              .format = info.dtype,
              .block_rows = block.rows,
              .block_cols = block.cols,
              .scale_dtype = scale_dtype_of(scale)};
  w.codes = elements_of<std::uint8_t>(l.reader, info, info.dtype);
  w.scales = floats_of(l.reader, scale);
  return w;
}

// Of the blocks of W, as floats: whole numbers but for those that are real.
std::vector<float> read_zeros(const StoredLinear& l, const Shape& shape,
                              std::size_t count) {
  const TensorInfo* const info = l.find(part("zero_point"));
  if (info == nullptr) return std::vector<float>(count);
  require_shape(*info, shape);
  if (is_plain_float(info->dtype)) return floats_of(l.reader, *info);
  std::vector<float> zeros;
  for (const std::int64_t z : integers_of(l.reader, *info)) {
    zeros.push_back(static_cast<float>(z));
  }
  return zeros;
}

// Integers in octets, with a scale and a zero point a block.
struct Octets {
  std::size_t out = 0, in = 0;
  int bits = 8;
  Block block{};
  DType scale_dtype = DType::kF32;
  std::vector<std::int8_t> codes{};      // [out, in]
  std::vector<float> scales{}, zeros{};  // [out / rows, in / cols]
};

Octets read_octets(const StoredLinear& l, const Description& d, int bits) {
  const TensorInfo& info = l.require(part("qdata"));
  const auto [out, in] = require_matrix(info);
  Octets w{.out = out, .in = in, .bits = bits};
  w.block = block_of(l, d, out, in);
  w.codes = elements_of<std::int8_t>(l.reader, info, DType::kI8);
  const int half = 1 << (bits - 1);
  for (const std::int8_t code : w.codes) {
    if (code >= -half && code < half) continue;
    refuse(
        l,
        formatted("{} holds {}, beyond {} bits", subject_of(info), code, bits),
        ErrorCode::kCorruptFile);
  }
  const TensorInfo& scale = l.require(part("scale"));
  const Shape shape{out / w.block.rows, in / w.block.cols};
  require_shape(scale, shape);
  w.scale_dtype = scale_dtype_of(scale);
  w.scales = floats_of(l.reader, scale);
  w.zeros = read_zeros(l, shape, w.scales.size());
  return w;
}

bool all_zero(const std::vector<float>& values) {
  return std::ranges::all_of(values, [](float z) { return z == 0; });
}

// Octets with a scale a row, or one.
bool is_int8(const Octets& w) {
  return w.bits == 8 && w.block.cols == w.in &&
         (w.block.rows == 1 || w.block.rows == w.out) &&
         std::ranges::all_of(w.zeros,
                             [](float z) { return z == std::nearbyint(z); });
}

PackedWeight as_int8(Octets w) {
  Int8Weight result{.out = w.out,
                    .in = w.in,
                    .scale_dtype = w.scale_dtype,
                    .codes = std::move(w.codes),
                    .scales = std::move(w.scales)};
  if (!all_zero(w.zeros)) {
    for (const float z : w.zeros) {
      result.zeros.push_back(static_cast<std::int32_t>(z));
    }
  }
  return result;
}

void set_zeros(GroupedIntWeight& result, const std::vector<float>& zeros) {
  const auto half = static_cast<float>(1 << (result.bits - 1));
  result.symmetric = all_zero(zeros);
  if (result.symmetric) return;
  const bool whole = std::ranges::all_of(zeros, [&](float z) {
    return z == std::nearbyint(z) && z >= -half && z < half;
  });
  for (const float z : zeros) {
    if (whole) {
      result.zeros.push_back(static_cast<std::uint8_t>(z + half));
    } else {
      result.float_zeros.push_back(z + half);
    }
  }
}

PackedWeight as_groups(const Octets& w) {
  GroupedIntWeight result{.out = w.out,
                          .in = w.in,
                          .bits = w.bits,
                          .group_size = w.block.cols,
                          .scale_dtype = w.scale_dtype};
  const int half = 1 << (w.bits - 1);
  Matrix<std::uint8_t> codes(w.out, w.in);
  std::ranges::transform(w.codes, codes.data().begin(), [&](std::int8_t code) {
    return static_cast<std::uint8_t>(code + half);
  });
  result.codes = pack_rows(std::as_const(codes).view(), w.bits);
  const std::size_t groups = w.in / w.block.cols;
  std::vector<float> zeros;
  for (std::size_t o = 0; o < w.out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t at = o / w.block.rows * groups + g;
      result.scales.push_back(w.scales[at]);
      zeros.push_back(w.zeros[at]);
    }
  }
  set_zeros(result, zeros);
  return result;
}

PackedWeight read_int8(const StoredLinear& l, const Description& d) {
  Octets w = read_octets(l, d, 8);
  return is_int8(w) ? as_int8(std::move(w)) : as_groups(w);
}

PackedWeight read_intx(const StoredLinear& l, const Description& d) {
  const std::string type = word_of(l, member(l, d.data, "target_dtype"));
  const bool known = type.size() == 4 && type.starts_with("int") &&
                     type[3] >= '2' && type[3] <= '8';
  if (!known) refuse(l, "target_dtype '" + type + "', wanted int2 to int8");
  Octets w = read_octets(l, d, type[3] - '0');
  return is_int8(w) ? as_int8(std::move(w)) : as_groups(w);
}

// Codes from 0 to 15 of nibbles from -8 to 7.
Matrix<std::uint8_t> read_nibbles(const StoredLinear& l, const TensorInfo& info,
                                  std::size_t out, std::size_t in) {
  const auto octets = elements_of<std::uint8_t>(
      l.reader, info, info.dtype == DType::kU8 ? DType::kU8 : DType::kI8);
  Matrix<std::uint8_t> codes(out, in);
  for (std::size_t k = 0; k < codes.size(); ++k) {
    const int nibble = (k % 2 == 0 ? octets[k / 2] : octets[k / 2] >> 4) & 15;
    codes.data()[k] = static_cast<std::uint8_t>(nibble ^ 8);
  }
  return codes;
}

// s and z' = 8 - z / s of W = s (c - z'). Where s is 0, z alone is the group:
// its codes are set to 0, with scale z and zero point -1.
void add_group(float s, float z, std::span<std::uint8_t> codes,
               GroupedIntWeight& w) {
  const float zero = z == 0 ? 8.0f : 8.0f - z / s;
  const bool constant = !std::isfinite(zero);
  w.scales.push_back(constant ? z : s);
  w.float_zeros.push_back(constant ? -1.0f : zero);
  if (constant) std::ranges::fill(codes, std::uint8_t{0});
}

PackedWeight read_int4(const StoredLinear& l, const Description& d) {
  const TensorInfo& info = l.require(part("qdata"));
  const auto [out, half] = require_matrix(info);
  const std::size_t in = 2 * half;
  const Block block = block_of(l, d, out, in);
  if (block.rows != 1) refuse(l, "Int4Tensor with blocks of several rows");
  const std::size_t groups = in / block.cols;
  std::array<std::vector<float>, 2> values;  // [groups, out]
  for (std::size_t k = 0; k < 2; ++k) {
    const TensorInfo& t = l.require(part(k == 0 ? "scale" : "zero_point"));
    require_shape(t, Shape{groups, out});
    values[k] = floats_of(l.reader, t);
    if (!std::ranges::all_of(values[k],
                             [](float v) { return std::isfinite(v); })) {
      refuse(l, subject_of(t) + " holds a value that is not finite",
             ErrorCode::kInvalidInput);
    }
  }
  GroupedIntWeight w{.out = out,
                     .in = in,
                     .bits = 4,
                     .group_size = block.cols,
                     .scale_dtype = DType::kF32};
  Matrix<std::uint8_t> codes = read_nibbles(l, info, out, in);
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t g = 0; g < groups; ++g) {
      add_group(values[0][g * out + o], values[1][g * out + o],
                codes.row(o).subspan(g * block.cols, block.cols), w);
    }
  }
  w.codes = pack_rows(std::as_const(codes).view(), w.bits);
  w.symmetric =
      std::ranges::all_of(w.float_zeros, [](float z) { return z == 8; });
  if (w.symmetric) w.float_zeros.clear();
  return w;
}

// --- inputs ------------------------------------------------------------------

Range granularity_of(const StoredLinear& l, const json& kwargs) {
  const std::string type = type_of(l, member(l, kwargs, "granularity"));
  if (type == "PerRow") return Range::kToken;
  if (type == "PerTensor") return Range::kTensor;
  refuse(l, "inputs rounded '" + type + "', wanted PerRow or PerTensor");
}

ActivationQuant float8_inputs(const StoredLinear& l, const Description& d) {
  const json* const kwargs =
      quantization_json::find(d.data, "act_quant_kwargs");
  if (kwargs == nullptr) return {};
  const json& data = member(l, *kwargs, "_data");
  const std::string dtype = word_of(l, member(l, data, "float8_dtype"));
  if (dtype != "float8_e4m3fn") refuse(l, "inputs rounded to " + dtype);
  for (const char* bound : {"hp_value_lb", "hp_value_ub"}) {
    if (quantization_json::find(data, bound) != nullptr) {
      refuse(l, formatted("inputs with '{}' are not read", bound));
    }
  }
  return {.kind = Kind::kFp8, .range = granularity_of(l, data)};
}

ActivationQuant int8_inputs(const StoredLinear& l, const Description& d) {
  const json* const kwargs =
      quantization_json::find(d.data, "act_quant_kwargs");
  if (kwargs == nullptr) return {};
  const json& data = member(l, *kwargs, "_data");
  const json* const reduced = quantization_json::find(data, "reduce_range");
  if (reduced != nullptr && *reduced != false) {
    refuse(l, "inputs rounded to 7 bits (reduce_range)");
  }
  return {
      .kind = Kind::kInt,
      .range = granularity_of(l, data),
      .symmetric = word_of(l, member(l, data, "mapping_type")) != "ASYMMETRIC"};
}

ActivationQuant intx_inputs(const StoredLinear& l, const Description& d) {
  const json* const kind =
      quantization_json::find(d.data, "activation_quantization");
  if (kind == nullptr) return {};
  if (*kind != "int8_asym_per_token") {
    refuse(l, "inputs rounded as " + kind->dump());
  }
  return {.kind = Kind::kInt, .symmetric = false};
}

// The kernels of bfloat16 inputs; those of 8-bit ones round them by row.
ActivationQuant int4_inputs(const StoredLinear& l, const Description& d) {
  const json* const dtype = quantization_json::find(d.data, "activation_dtype");
  if (dtype == nullptr || word_of(l, *dtype) == "bfloat16") return {};
  return {.kind = Kind::kFp8};
}

struct TensorClass {
  std::string_view name;
  PackedWeight (*read)(const StoredLinear&, const Description&);
  ActivationQuant (*inputs)(const StoredLinear&, const Description&);
};
constexpr std::array kClasses{
    TensorClass{"Int8Tensor", read_int8, int8_inputs},
    TensorClass{"IntxUnpackedToInt8Tensor", read_intx, intx_inputs},
    TensorClass{"Float8Tensor", read_float8, float8_inputs},
    TensorClass{"Int4Tensor", read_int4, int4_inputs}};

const TensorClass& class_of(const StoredLinear& l, const std::string& type) {
  std::string known;
  for (const TensorClass& row : kClasses) {
    if (row.name == type) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  refuse(l, "is a " + type + ", which is not read (known are " + known +
                "); give the model that it was made from");
}

}  // namespace

bool is_torchao(const StoredLinear& l) {
  return l.find(part("qdata")) != nullptr;
}

PackedWeight read_torchao(const StoredLinear& l) {
  const Description d = describe_weight(l);
  require_no_prescale(l);
  return class_of(l, d.type).read(l, d);
}

ActivationQuant torchao_activations(const StoredLinear& l) {
  const Description d = describe_weight(l);
  return class_of(l, d.type).inputs(l, d);
}

}  // namespace llmpress

// Writing; reading is in compressed_tensors_decode.cpp.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/bitsandbytes.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/loader_rules.h"
#include "formats/linears/packed_words.h"
#include "formats/linears/sparse_tensors.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

NamedTensor shape_tensor(const std::string& name, std::size_t out,
                         std::size_t in) {
  return tensor_of<std::int64_t>(
      name, DType::kI64, {2},
      {static_cast<std::int64_t>(out), static_cast<std::int64_t>(in)});
}

NamedTensor zero_tensor(const std::string& name, const Shape& shape,
                        const std::vector<std::int32_t>& zeros,
                        const std::string& linear) {
  std::vector<std::int8_t> narrow;
  for (const std::int32_t z : zeros) {
    if (z < INT8_MIN || z > INT8_MAX) {
      fail(ErrorCode::kUnsupported,
           "Linear '{}': zero point {} does not fit the 8 bits of "
           "compressed-tensors",
           linear, z);
    }
    narrow.push_back(static_cast<std::int8_t>(z));
  }
  return tensor_of(name, DType::kI8, shape, narrow);
}

// --- one overload a packed type; the last argument's scheme is filled in
// ------

void encode(const std::string& p, const DenseWeight& w, EncodedLinear& e) {
  e.tensors.push_back({.name = p + ".weight",
                       .dtype = w.dtype,
                       .shape = {w.out, w.in},
                       .bytes = w.data});
}

void encode(const std::string& p, const GroupedIntWeight& w, EncodedLinear& e) {
  const bool by_channel = w.group_size >= w.in && w.g_idx.empty();
  e.scheme.format = "pack-quantized";
  e.scheme.weights = QuantArgs{.bits = w.bits,
                               .symmetric = w.symmetric,
                               .strategy = by_channel ? "channel" : "group",
                               .group_size = by_channel ? 0 : w.group_size,
                               .order_by_group = !w.g_idx.empty()};
  const std::size_t groups = w.groups();
  e.tensors.push_back(tensor_of(p + ".weight_packed", DType::kI32,
                                {w.out, w.words_per_row()}, w.codes));
  e.tensors.push_back(float_tensor(p + ".weight_scale", w.scale_dtype,
                                   {w.out, groups}, w.scales));
  e.tensors.push_back(shape_tensor(p + ".weight_shape", w.out, w.in));
  if (!w.zeros.empty()) {
    e.tensors.push_back(
        tensor_of(p + ".weight_zero_point", DType::kI32,
                  {packed_words(w.out, w.bits), groups},
                  pack_columns(w.zeros, w.out, groups, w.bits)));
  }
  if (!w.float_zeros.empty()) {
    e.tensors.push_back(float_tensor(p + ".weight_zero_float", w.scale_dtype,
                                     {w.out, groups}, w.float_zeros));
  }
  if (!w.g_idx.empty()) {
    e.tensors.push_back(
        tensor_of(p + ".weight_g_idx", DType::kI32, {w.in}, w.g_idx));
  }
}

void encode(const std::string& p, const Int8Weight& w, EncodedLinear& e) {
  const bool whole = w.scales.size() == 1;
  const Shape shape = whole ? Shape{1} : Shape{w.out, 1};
  e.scheme.format = "int-quantized";
  e.scheme.weights = QuantArgs{.bits = 8,
                               .symmetric = w.zeros.empty(),
                               .strategy = whole ? "tensor" : "channel"};
  e.tensors.push_back(
      tensor_of(p + ".weight", DType::kI8, {w.out, w.in}, w.codes));
  e.tensors.push_back(
      float_tensor(p + ".weight_scale", w.scale_dtype, shape, w.scales));
  if (!w.zeros.empty()) {
    e.tensors.push_back(
        zero_tensor(p + ".weight_zero_point", shape, w.zeros, p));
  }
  if (!w.outlier_columns.empty()) {
    const std::size_t columns = w.outlier_columns.size();
    e.tensors.push_back(tensor_of(p + ".outlier_columns", DType::kI32,
                                  {columns}, w.outlier_columns));
    e.tensors.push_back(tensor_of(p + ".outlier_values", DType::kF16,
                                  {w.out, columns}, w.outlier_values));
  }
}

void encode(const std::string& p, const Fp8Weight& w, EncodedLinear& e) {
  const std::size_t rows = ceil_div(w.out, w.block_rows);
  const std::size_t cols = ceil_div(w.in, w.block_cols);
  QuantArgs args{.bits = 8, .floating = true};
  Shape shape{rows, cols};
  if (rows == 1 && cols == 1) {
    shape = {1};
  } else if (w.block_rows == 1 && cols == 1) {
    args.strategy = "channel";
  } else {
    args.strategy = "block";
    args.block_rows = w.block_rows;
    args.block_cols = w.block_cols;
  }
  e.scheme.format = "float-quantized";
  e.scheme.weights = std::move(args);
  e.tensors.push_back(
      tensor_of(p + ".weight", w.format, {w.out, w.in}, w.codes));
  e.tensors.push_back(
      float_tensor(p + ".weight_scale", w.scale_dtype, shape, w.scales));
}

void encode(const std::string& p, const MicroFp4Weight& w, EncodedLinear& e) {
  const bool nv = w.kind == MicroFp4Kind::kNvfp4;
  e.scheme.format = nv ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized";
  e.scheme.weights = QuantArgs{.bits = 4,
                               .floating = true,
                               .strategy = nv ? "tensor_group" : "group",
                               .group_size = w.group()};
  e.tensors.push_back(tensor_of(p + ".weight_packed", DType::kU8,
                                {w.out, ceil_div(w.in, 2)}, w.codes));
  e.tensors.push_back(tensor_of(p + ".weight_scale",
                                nv ? DType::kF8E4M3 : DType::kU8,
                                {w.out, ceil_div(w.in, w.group())}, w.scales));
  if (nv) {
    e.tensors.push_back(tensor_of<float>(p + ".weight_global_scale",
                                         DType::kF32, {1}, {w.global_scale}));
  }
  if (w.in % w.group() != 0) {  // others take `in` from the packed shape
    e.tensors.push_back(shape_tensor(p + ".weight_shape", w.out, w.in));
  }
}

void encode(const std::string& p, const Table4Weight& w, EncodedLinear& e) {
  e.scheme.weights = QuantArgs{.bits = 4,
                               .floating = true,
                               .strategy = "group",
                               .group_size = w.block_size};
  for (NamedTensor& t : table4_tensors(p, w, DType::kF32)) {
    e.tensors.push_back(std::move(t));
  }
}

void encode(const std::string& p, const SparseWeight& w, EncodedLinear& e) {
  encode_sparse(p, w, e);
}

// --- activations
// --------------------------------------------------------------

void encode_activations(const std::string& p, const ActivationQuant& input,
                        EncodedLinear& e) {
  if (input.kind == ActivationQuant::Kind::kNone) return;
  const bool is_static = input.range == ActivationQuant::Range::kStatic;
  const bool by_token = input.range == ActivationQuant::Range::kToken;
  const bool floating = input.kind == ActivationQuant::Kind::kFp8;
  e.scheme.input = QuantArgs{.bits = floating ? 8 : input.bits,
                             .floating = floating,
                             .symmetric = input.symmetric,
                             .dynamic = !is_static,
                             .strategy = by_token ? "token" : "tensor"};
  if (!is_static) return;
  e.tensors.push_back(tensor_of<float>(p + ".input_scale", DType::kF32, {1},
                                       {input.static_scale}));
  if (!input.symmetric) {
    e.tensors.push_back(
        zero_tensor(p + ".input_zero_point", {1}, {input.static_zero}, p));
  }
}

DType preferred_bias_dtype(const PackedWeight& weight) {
  return std::visit(
      [](const auto& w) {
        if constexpr (requires { w.scale_dtype; }) {
          return w.scale_dtype;
        } else if constexpr (requires { w.dtype; }) {
          return w.dtype;
        } else {
          return DType::kF16;
        }
      },
      weight);
}

}  // namespace

EncodedLinear encode_compressed_tensors(const std::string& name,
                                        const LinearWeights& linear) {
  EncodedLinear encoded;
  std::visit([&](const auto& w) { encode(name, w, encoded); }, linear.weight);
  add_bias(name, linear, preferred_bias_dtype(linear.weight), encoded);
  encode_activations(name, linear.input, encoded);
  encoded.extension.outlier_threshold = linear.input.outlier_threshold;
  encoded.extension.input_hadamard = linear.input_hadamard;
  const LoaderRule* const rule = broken_rule(name, linear);
  if (rule != nullptr && rule->readers == Readers::kOnlyUs) {
    encoded.scheme.format = kOwnFormat;
  }
  return encoded;
}

}  // namespace llmpress

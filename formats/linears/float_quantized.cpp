// 8-bit floats: float-quantized, and mxfp8-quantized.
#include <utility>

#include "compress/core/checked.h"
#include "formats/linears/compressed_tensors_parts.h"
#include "formats/linears/exponent_scales.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

constexpr std::size_t kMxGroup = 32;  // of MXFP8

const TensorInfo* find_fp8_scale(const StoredLinear& l) {
  for (const char* suffix : {".weight_scale", ".weight_scale_inv", ".scale"}) {
    if (const TensorInfo* const info = l.find(suffix)) return info;
  }
  return nullptr;
}

// The configuration's block if it says one, otherwise what the shape can mean.
void find_block(const StoredLinear& l, const TensorInfo& scale, Fp8Weight& w) {
  const QuantArgs* const args = l.scheme.weights ? &*l.scheme.weights : nullptr;
  const std::size_t count = checked_elements(scale.shape, subject_of(scale));
  if (args != nullptr && args->strategy == "block") {
    w.block_rows = args->block_rows;
    w.block_cols = args->block_cols;
  } else if (args != nullptr && args->strategy == "group") {
    w.block_rows = 1;
    w.block_cols = args->group_size;
  } else if (count == 1) {
    w.block_rows = w.out;
    w.block_cols = w.in;
  } else {
    w.block_rows = 1;
    w.block_cols = w.in;
  }
  if (w.block_rows == 0 || w.block_cols == 0) {
    refuse(l, ErrorCode::kInvalidInput,
           "quantization_config has an empty block");
  }
  const std::size_t rows = ceil_div(w.out, w.block_rows);
  const std::size_t cols = ceil_div(w.in, w.block_cols);
  const bool one = count == 1 && rows * cols == 1;
  if (!one && !(cols == 1 && scale.shape == Shape{rows})) {
    require_shape(scale, Shape{rows, cols});
  }
}

}  // namespace

bool is_float_quantized(const StoredLinear& l) {
  const TensorInfo* const weight = l.find(".weight");
  const bool fp8 = weight != nullptr && (weight->dtype == DType::kF8E4M3 ||
                                         weight->dtype == DType::kF8E5M2);
  return fp8 && find_fp8_scale(l) != nullptr;
}

PackedWeight read_float_quantized(const StoredLinear& l) {
  const TensorInfo& info = l.require(".weight");
  const auto [out, in] = require_matrix(info);
  Fp8Weight w{.out = out, .in = in, .format = info.dtype};
  w.codes = elements_of<std::uint8_t>(l.reader, info, info.dtype);
  const TensorInfo& scale = *find_fp8_scale(l);
  find_block(l, scale, w);
  if (scale.dtype == DType::kU8 || scale.dtype == DType::kF8E8M0) {
    w.scale_dtype = DType::kBF16;  // which holds any E8M0
    w.scales = read_exponents(l.reader, scale);
    return w;
  }
  w.scale_dtype = scale_dtype_of(scale);
  w.scales = floats_of(l.reader, scale);
  return w;
}

namespace {

// Whether it is MXFP8: E4M3 with a power of two for every 32 inputs.
bool encode_mxfp8(const std::string& p, const Fp8Weight& w, EncodedLinear& e) {
  if (w.format != DType::kF8E4M3 || w.block_rows != 1 ||
      w.block_cols != kMxGroup || w.in % kMxGroup != 0 ||
      w.scale_dtype != DType::kBF16) {
    return false;
  }
  const auto exponents = exponents_of(w.scales);
  if (!exponents) return false;
  e.scheme.format = "mxfp8-quantized";
  e.scheme.weights = QuantArgs{
      .bits = 8, .floating = true, .strategy = "group", .group_size = kMxGroup};
  e.tensors.push_back(
      tensor_of(p + ".weight", w.format, {w.out, w.in}, w.codes));
  e.tensors.push_back(tensor_of(p + ".weight_scale", DType::kU8,
                                {w.out, w.in / kMxGroup}, *exponents));
  return true;
}

}  // namespace

void encode_weight(const std::string& p, const Fp8Weight& w, EncodedLinear& e) {
  if (encode_mxfp8(p, w, e)) return;
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

}  // namespace llmpress

// Reading 8-bit and 4-bit floats, and how inputs are rounded; integers are in
// compressed_tensors_decode.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/compressed_tensors.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

[[noreturn]] void refuse(const StoredLinear& l, ErrorCode code,
                         const std::string& what) {
  fail(code, "{}: {}", l.where(), what);
}

// --- 8-bit floats
// -------------------------------------------------------------

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
  if (scale.dtype == DType::kU8) {
    refuse(
        l, ErrorCode::kUnsupported,
        "is MXFP8 (8-bit floats with U8 scales in groups), which is not read; "
        "give the model that it was made from");
  }
  find_block(l, scale, w);
  w.scale_dtype = scale_dtype_of(scale);
  w.scales = floats_of(l.reader, scale);
  return w;
}

bool is_micro_fp4(const StoredLinear& l) {
  const TensorInfo* const packed = l.find(".weight_packed");
  return packed != nullptr && packed->dtype == DType::kU8 &&
         l.find(".weight_scale") != nullptr;
}

PackedWeight read_micro_fp4(const StoredLinear& l) {
  const TensorInfo& info = l.require(".weight_packed");
  const std::size_t out = require_matrix(info).first;
  MicroFp4Weight w{.out = out, .in = info.shape[1] * 2};
  if (l.find(".weight_shape") != nullptr) {
    w.in = read_matrix_shape(l).second;
    require_shape(info, Shape{out, ceil_div(w.in, 2)});
  }
  w.codes = elements_of<std::uint8_t>(l.reader, info, DType::kU8);
  const TensorInfo& scale = l.require(".weight_scale");
  if (const TensorInfo* const global = l.find(".weight_global_scale")) {
    w.kind = MicroFp4Kind::kNvfp4;
    const auto values = floats_of(l.reader, *global);
    if (values.size() != 1) require_shape(*global, Shape{1});
    w.global_scale = values[0];
    w.scales = elements_of<std::uint8_t>(l.reader, scale, DType::kF8E4M3);
  } else {
    const bool named = scale.dtype == DType::kF8E8M0;
    w.scales = elements_of<std::uint8_t>(l.reader, scale,
                                         named ? DType::kF8E8M0 : DType::kU8);
  }
  require_shape(scale, Shape{out, ceil_div(w.in, w.group())});
  return w;
}

ActivationQuant read_activations(const StoredLinear& l) {
  ActivationQuant input{.outlier_threshold = l.extension.outlier_threshold};
  if (!l.scheme.input) return input;
  const QuantArgs& args = *l.scheme.input;
  const bool known =
      args.floating ? args.bits == 8 : args.bits == 8 || args.bits == 4;
  if (!known) {
    refuse(l, ErrorCode::kUnsupported,
           formatted("activations of {}-bit {}", args.bits,
                     args.floating ? "floats" : "integers"));
  }
  input.kind =
      args.floating ? ActivationQuant::Kind::kFp8 : ActivationQuant::Kind::kInt;
  input.bits = args.bits;
  input.symmetric = args.symmetric;
  if (args.dynamic) {
    input.range = args.strategy == "tensor" ? ActivationQuant::Range::kTensor
                                            : ActivationQuant::Range::kToken;
    return input;
  }
  input.range = ActivationQuant::Range::kStatic;
  const TensorInfo& scale = l.require(".input_scale");
  const auto scales = floats_of(l.reader, scale);
  if (scales.size() != 1 || !std::isfinite(scales[0]) || scales[0] <= 0) {
    refuse(l, ErrorCode::kCorruptFile,
           subject_of(scale) + " is not one positive number");
  }
  input.static_scale = scales[0];
  if (!args.symmetric) {
    const TensorInfo& zero = l.require(".input_zero_point");
    const auto zeros = integers_of(l.reader, zero);
    if (zeros.size() != 1 || zeros[0] < -65536 || zeros[0] > 65536) {
      refuse(l, ErrorCode::kCorruptFile,
             subject_of(zero) + " is not one zero point");
    }
    input.static_zero = static_cast<std::int32_t>(zeros[0]);
  }
  return input;
}

}  // namespace llmpress

// Reading; writing is in compressed_tensors_encode.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "formats/compressed_tensors.h"
#include "formats/packed_words.h"
#include "formats/typed_tensors.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

[[noreturn]] void fail(const StoredLinear& l, ErrorCode code,
                       const std::string& what) {
  throw Error(code, l.where() + ": " + what);
}

const QuantArgs& require_args(const StoredLinear& l, bool floating) {
  if (!l.scheme.weights || l.scheme.weights->floating != floating) {
    fail(l, ErrorCode::kInvalidInput,
         std::string(
             "its weight is quantized, but quantization_config has no ") +
             (floating ? "float" : "int") + " weights for it");
  }
  return *l.scheme.weights;
}

std::pair<std::size_t, std::size_t> require_matrix(const TensorInfo& info) {
  if (info.shape.size() != 2) {
    throw Error(ErrorCode::kCorruptFile, subject_of(info) + ": has shape " +
                                             shape_text(info.shape) +
                                             ", wanted 2 dimensions");
  }
  // Products of the two below cannot overflow.
  checked_mul(checked_mul(info.shape[0], info.shape[1], subject_of(info)), 64,
              subject_of(info));
  return {info.shape[0], info.shape[1]};
}

// Scales keep the type that they are stored in.
DType scale_dtype_of(const TensorInfo& info) {
  return info.dtype == DType::kF16 || info.dtype == DType::kBF16 ? info.dtype
                                                                 : DType::kF32;
}

// --- integers
// -----------------------------------------------------------------

std::size_t group_size_of(const QuantArgs& args, std::size_t in) {
  const bool grouped =
      args.strategy == "group" || args.strategy == "tensor_group";
  return grouped && args.group_size != 0 ? std::min(args.group_size, in) : in;
}

// Values of [out, groups], [out] or one for all, as [out, groups].
template <class T>
std::vector<T> spread(const TensorInfo& info, std::vector<T> values,
                      std::size_t out, std::size_t groups) {
  if (values.size() == 1) return std::vector<T>(out * groups, values[0]);
  if (groups != 1 || info.shape != Shape{out}) {
    require_shape(info, Shape{out, groups});
  }
  return values;
}

void read_scales(const StoredLinear& l, GroupedIntWeight& w) {
  const TensorInfo& info = l.require(".weight_scale");
  w.scale_dtype = scale_dtype_of(info);
  w.scales = spread(info, floats_of(l.reader, info), w.out, w.groups());
}

std::vector<std::uint8_t> unsigned_codes(const StoredLinear& l,
                                         const TensorInfo& info, int bits) {
  const std::int64_t offset = std::int64_t{1} << (bits - 1);
  std::vector<std::uint8_t> codes;
  const auto stored = integers_of(l.reader, info);
  codes.reserve(stored.size());
  for (const std::int64_t v : stored) {
    if (v < -offset || v >= offset) {
      fail(l, ErrorCode::kCorruptFile,
           subject_of(info) + " holds " + std::to_string(v) + ", beyond " +
               std::to_string(bits) + " bits");
    }
    codes.push_back(static_cast<std::uint8_t>(v + offset));
  }
  return codes;
}

// Zero points packed along dimension 0, or one signed octet each.
void read_zeros(const StoredLinear& l, WordPacking packing,
                GroupedIntWeight& w) {
  if (l.find(".weight_zero_float") != nullptr) {
    const TensorInfo& info = l.require(".weight_zero_float");
    require_shape(info, Shape{w.out, w.groups()});
    w.float_zeros = floats_of(l.reader, info);
    w.symmetric = false;
    return;
  }
  const bool declared = l.scheme.weights->symmetric;
  const TensorInfo* const info = l.find(".weight_zero_point");
  if (info == nullptr) {
    w.symmetric = true;
    if (!declared) (void)l.require(".weight_zero_point");
    return;
  }
  if (info->dtype == DType::kI32 && info->shape.size() == 2 &&
      info->shape[0] == words_for(w.out, w.bits, packing)) {
    require_shape(*info, Shape{info->shape[0], w.groups()});
    w.zeros =
        unpack_columns(elements_of<std::uint32_t>(l.reader, *info, DType::kI32),
                       w.out, w.groups(), w.bits, packing);
  } else {
    w.zeros =
        spread(*info, unsigned_codes(l, *info, w.bits), w.out, w.groups());
  }
  // Some writers keep the zero points of a symmetric grid.
  const auto middle = static_cast<std::uint8_t>(1 << (w.bits - 1));
  w.symmetric = declared && std::all_of(w.zeros.begin(), w.zeros.end(),
                                        [&](auto z) { return z == middle; });
  if (w.symmetric) w.zeros.clear();
}

void read_group_index(const StoredLinear& l, GroupedIntWeight& w) {
  const TensorInfo* const info = l.find(".weight_g_idx");
  if (info == nullptr) return;
  require_shape(*info, Shape{w.in});
  const auto stored = integers_of(l.reader, *info);
  // Older writers leave -1 everywhere where there is no order.
  if (std::all_of(stored.begin(), stored.end(),
                  [](auto g) { return g == -1; })) {
    return;
  }
  for (const std::int64_t g : stored) {
    if (g < 0 || g > std::numeric_limits<std::int32_t>::max()) {
      fail(l, ErrorCode::kCorruptFile,
           subject_of(*info) + " holds group " + std::to_string(g));
    }
    w.g_idx.push_back(static_cast<std::uint32_t>(g));
  }
}

// [out, in] of p.weight_shape.
std::pair<std::size_t, std::size_t> read_shape(const StoredLinear& l) {
  const TensorInfo& info = l.require(".weight_shape");
  const auto stored = integers_of(l.reader, info);
  if (stored.size() != 2 || stored[0] <= 0 || stored[1] <= 0) {
    fail(l, ErrorCode::kCorruptFile,
         subject_of(info) + " is not two positive sizes");
  }
  return {static_cast<std::size_t>(stored[0]),
          static_cast<std::size_t>(stored[1])};
}

WordPacking packing_of(const StoredLinear& l, const TensorInfo& info,
                       std::size_t in, int bits) {
  for (const WordPacking p : {WordPacking::kDense, WordPacking::kOld}) {
    if (info.shape[1] == words_for(in, bits, p)) return p;
  }
  fail(l, ErrorCode::kCorruptFile,
       subject_of(info) + ": has " + std::to_string(info.shape[1]) +
           " words a row, " + std::to_string(in) + " codes of " +
           std::to_string(bits) + " bits need " +
           std::to_string(words_for(in, bits, WordPacking::kDense)));
}

std::vector<std::uint32_t> repacked(std::vector<std::uint32_t> words,
                                    const GroupedIntWeight& w,
                                    WordPacking packing) {
  if (packing == WordPacking::kDense) return words;
  const std::size_t per_row = words_for(w.in, w.bits, packing);
  Matrix<std::uint8_t> codes(w.out, w.in);
  for (std::size_t o = 0; o < w.out; ++o) {
    unpack_words(std::span(words).subspan(o * per_row, per_row), w.bits,
                 packing, codes.row(o));
  }
  return pack_rows(std::as_const(codes).view(), w.bits);
}

void require_int_bits(const StoredLinear& l, int bits) {
  if (bits < 2 || bits > 8) {
    fail(l, ErrorCode::kUnsupported,
         std::to_string(bits) + "-bit integers, wanted 2..8 bits");
  }
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
    fail(l, ErrorCode::kInvalidInput, "quantization_config has an empty block");
  }
  const std::size_t rows = ceil_div(w.out, w.block_rows);
  const std::size_t cols = ceil_div(w.in, w.block_cols);
  const bool one = count == 1 && rows * cols == 1;
  if (!one && !(cols == 1 && scale.shape == Shape{rows})) {
    require_shape(scale, Shape{rows, cols});
  }
}

}  // namespace

bool is_pack_quantized(const StoredLinear& l) {
  const TensorInfo* const packed = l.find(".weight_packed");
  return packed != nullptr && packed->dtype == DType::kI32;
}

PackedWeight read_pack_quantized(const StoredLinear& l) {
  const QuantArgs& args = require_args(l, false);
  require_int_bits(l, args.bits);
  const TensorInfo& info = l.require(".weight_packed");
  const auto [out, in] = read_shape(l);
  checked_mul(checked_mul(out, in, l.where()), 64, l.where());
  require_matrix(info);
  const WordPacking packing = packing_of(l, info, in, args.bits);
  require_shape(info, Shape{out, info.shape[1]});
  GroupedIntWeight w{.out = out, .in = in, .bits = args.bits};
  w.group_size = group_size_of(args, in);
  w.codes = repacked(elements_of<std::uint32_t>(l.reader, info, DType::kI32), w,
                     packing);
  read_scales(l, w);
  read_zeros(l, packing, w);
  read_group_index(l, w);
  return w;
}

bool is_int_quantized(const StoredLinear& l) {
  const TensorInfo* const weight = l.find(".weight");
  return weight != nullptr && weight->dtype == DType::kI8 &&
         l.find(".weight_scale") != nullptr;
}

namespace {

// Fewer bits than 8, or groups.
PackedWeight read_naive_groups(const StoredLinear& l, const TensorInfo& info) {
  const QuantArgs& args = *l.scheme.weights;
  GroupedIntWeight w{
      .out = info.shape[0], .in = info.shape[1], .bits = args.bits};
  w.group_size = group_size_of(args, w.in);
  const auto codes = unsigned_codes(l, info, w.bits);
  w.codes = pack_rows({codes, w.out, w.in}, w.bits);
  read_scales(l, w);
  read_zeros(l, WordPacking::kDense, w);
  read_group_index(l, w);
  return w;
}

void read_outliers(const StoredLinear& l, Int8Weight& w) {
  const TensorInfo* const columns = l.find(".outlier_columns");
  if (columns == nullptr) return;
  w.outlier_columns =
      elements_of<std::uint32_t>(l.reader, *columns, DType::kI32);
  const TensorInfo& values = l.require(".outlier_values");
  require_shape(values, Shape{w.out, w.outlier_columns.size()});
  w.outlier_values = elements_of<std::uint16_t>(l.reader, values, DType::kF16);
}

}  // namespace

PackedWeight read_int_quantized(const StoredLinear& l) {
  const QuantArgs& args = require_args(l, false);
  require_int_bits(l, args.bits);
  const TensorInfo& info = l.require(".weight");
  const auto [out, in] = require_matrix(info);
  if (args.bits != 8 || group_size_of(args, in) != in ||
      l.find(".weight_g_idx") != nullptr) {
    return read_naive_groups(l, info);
  }
  Int8Weight w{.out = out, .in = in};
  w.codes = elements_of<std::int8_t>(l.reader, info, DType::kI8);
  const TensorInfo& scale = l.require(".weight_scale");
  w.scale_dtype = scale_dtype_of(scale);
  w.scales = floats_of(l.reader, scale);
  if (w.scales.size() != 1) w.scales = spread(scale, w.scales, out, 1);
  if (const TensorInfo* const zero = l.find(".weight_zero_point")) {
    const auto zeros = unsigned_codes(l, *zero, 8);
    for (const std::uint8_t z : zeros) w.zeros.push_back(int{z} - 128);
    if (w.zeros.size() == 1) w.zeros.resize(w.scales.size(), w.zeros[0]);
    const bool none = std::all_of(w.zeros.begin(), w.zeros.end(),
                                  [](auto z) { return z == 0; });
    if (none && args.symmetric) w.zeros.clear();
  } else if (!args.symmetric) {
    (void)l.require(".weight_zero_point");
  }
  read_outliers(l, w);
  return w;
}

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
    w.in = read_shape(l).second;
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
    fail(l, ErrorCode::kUnsupported,
         "activations of " + std::to_string(args.bits) + "-bit " +
             (args.floating ? "floats" : "integers"));
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
    fail(l, ErrorCode::kCorruptFile,
         subject_of(scale) + " is not one positive number");
  }
  input.static_scale = scales[0];
  if (!args.symmetric) {
    const TensorInfo& zero = l.require(".input_zero_point");
    const auto zeros = integers_of(l.reader, zero);
    if (zeros.size() != 1 || zeros[0] < -65536 || zeros[0] > 65536) {
      fail(l, ErrorCode::kCorruptFile,
           subject_of(zero) + " is not one zero point");
    }
    input.static_zero = static_cast<std::int32_t>(zeros[0]);
  }
  return input;
}

}  // namespace llmpress

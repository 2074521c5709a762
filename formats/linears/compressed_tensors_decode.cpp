// Reading integers; floats are in compressed_tensors_floats.cpp, writing is in
// compressed_tensors_encode.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/packed_words.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

[[noreturn]] void refuse(const StoredLinear& l, ErrorCode code,
                         const std::string& what) {
  fail(code, "{}: {}", l.where(), what);
}

const QuantArgs& require_args(const StoredLinear& l, bool floating) {
  if (!l.scheme.weights || l.scheme.weights->floating != floating) {
    refuse(l, ErrorCode::kInvalidInput,
           formatted("its weight is quantized, but quantization_config has no "
                     "{} weights for it",
                     floating ? "float" : "int"));
  }
  return *l.scheme.weights;
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
      refuse(
          l, ErrorCode::kCorruptFile,
          formatted("{} holds {}, beyond {} bits", subject_of(info), v, bits));
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
      refuse(l, ErrorCode::kCorruptFile,
             formatted("{} holds group {}", subject_of(*info), g));
    }
    w.g_idx.push_back(static_cast<std::uint32_t>(g));
  }
}

WordPacking packing_of(const StoredLinear& l, const TensorInfo& info,
                       std::size_t in, int bits) {
  for (const WordPacking p : {WordPacking::kDense, WordPacking::kOld}) {
    if (info.shape[1] == words_for(in, bits, p)) return p;
  }
  refuse(l, ErrorCode::kCorruptFile,
         formatted("{}: has {} words a row, {} codes of {} bits need {}",
                   subject_of(info), info.shape[1], in, bits,
                   words_for(in, bits, WordPacking::kDense)));
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
    refuse(l, ErrorCode::kUnsupported,
           formatted("{}-bit integers, wanted 2..8 bits", bits));
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
  const auto [out, in] = read_matrix_shape(l);
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

}  // namespace llmpress

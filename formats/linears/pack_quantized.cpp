// Affine integers in groups: pack-quantized and naive-quantized.
#include <algorithm>
#include <limits>
#include <span>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/formatted.h"
#include "formats/linears/compressed_tensors_parts.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

void read_scales(const StoredLinear& l, GroupedIntWeight& w) {
  const TensorInfo& info = l.require(".weight_scale");
  w.scale_dtype = scale_dtype_of(info);
  w.scales = spread(info, floats_of(l.reader, info), w.out, w.groups());
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

}  // namespace

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

void encode_weight(const std::string& p, const GroupedIntWeight& w,
                   EncodedLinear& e) {
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

}  // namespace llmpress

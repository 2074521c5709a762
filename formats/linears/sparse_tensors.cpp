#include "formats/linears/sparse_tensors.h"

#include <bit>
#include <cstdint>
#include <utility>

#include "compress/core/bit_packing.h"
#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/packed_words.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

void encode_codes(const std::string& p, const SparseWeight& w,
                  EncodedLinear& e) {
  const std::size_t groups = ceil_div(w.in, w.group_size);
  std::vector<std::uint32_t> words(packed_words(w.codes.size(), w.bits));
  pack_codes(w.codes, w.bits, words);
  e.tensors.push_back(
      tensor_of(p + ".weight.compressed", DType::kI32, {words.size()}, words));
  e.tensors.push_back(float_tensor(p + ".weight_scale", w.scale_dtype,
                                   {w.out, groups}, w.scales));
  if (!w.zeros.empty()) {
    e.tensors.push_back(
        tensor_of(p + ".weight_zero_point", DType::kI32,
                  {packed_words(w.out, w.bits), groups},
                  pack_columns(w.zeros, w.out, groups, w.bits)));
  }
  e.scheme.weights = QuantArgs{.bits = w.bits,
                               .symmetric = w.zeros.empty(),
                               .strategy = "group",
                               .group_size = w.group_size};
  e.extension.sparse_bits = w.bits;
  e.extension.sparse_group_size = w.group_size;
}

// Where each row's kept values begin, and how many there are in all, from the
// mask; bits beyond `in` must be 0.
std::vector<std::uint64_t> count_rows(const SparseWeight& w,
                                      const TensorInfo& mask) {
  const std::size_t octets = ceil_div(w.in, 8);
  std::vector<std::uint64_t> offsets{0};
  offsets.reserve(w.out + 1);
  for (std::size_t o = 0; o < w.out; ++o) {
    std::uint64_t kept = 0;
    for (std::size_t b = 0; b < octets; ++b) {
      kept += static_cast<std::uint64_t>(std::popcount(w.mask[o * octets + b]));
    }
    if (w.in % 8 != 0 && w.mask[o * octets + octets - 1] >> (w.in % 8) != 0) {
      fail(ErrorCode::kCorruptFile, "{}: row {} keeps columns beyond {}",
           subject_of(mask), o, w.in);
    }
    offsets.push_back(offsets.back() + kept);
  }
  return offsets;
}

void check_row_offsets(const StoredLinear& l, const SparseWeight& w) {
  const TensorInfo* const info = l.find(".weight.row_offsets");
  if (info == nullptr) return;
  const auto stored = integers_of(l.reader, *info);
  bool same = stored.size() == w.out;
  for (std::size_t o = 0; same && o < w.out; ++o) {
    same = std::cmp_equal(stored[o], w.row_offsets[o]);
  }
  if (!same) {
    fail(ErrorCode::kCorruptFile, "{}: disagrees with the bitmask",
         subject_of(*info));
  }
}

void read_codes(const StoredLinear& l, const TensorInfo& values,
                SparseWeight& w) {
  w.bits = l.extension.sparse_bits;
  w.group_size = l.extension.sparse_group_size;
  if (w.bits < 2 || w.bits > 8 || w.group_size == 0) {
    fail(ErrorCode::kInvalidInput,
         "{}: quantization_config says {} bits in groups of {}", l.where(),
         w.bits, w.group_size);
  }
  const std::size_t kept = w.row_offsets.back();
  require_shape(values, Shape{packed_words(kept, w.bits)});
  w.codes.resize(kept);
  unpack_codes(elements_of<std::uint32_t>(l.reader, values, DType::kI32),
               w.bits, w.codes);
  const std::size_t groups = ceil_div(w.in, w.group_size);
  const TensorInfo& scale = l.require(".weight_scale");
  require_shape(scale, Shape{w.out, groups});
  w.scales = floats_of(l.reader, scale);
  if (scale.dtype == DType::kF16 || scale.dtype == DType::kBF16) {
    w.scale_dtype = scale.dtype;
  }
  if (const TensorInfo* const zero = l.find(".weight_zero_point")) {
    require_shape(*zero, Shape{packed_words(w.out, w.bits), groups});
    w.zeros =
        unpack_columns(elements_of<std::uint32_t>(l.reader, *zero, DType::kI32),
                       w.out, groups, w.bits, WordPacking::kDense);
  }
}

void read_numbers(const StoredLinear& l, const TensorInfo& values,
                  SparseWeight& w) {
  const std::size_t kept = w.row_offsets.back();
  if (values.shape.size() == 2) {
    require_shape(values, Shape{w.out, w.in / 2});
  } else {
    require_shape(values, Shape{kept});
  }
  if (checked_elements(values.shape, subject_of(values)) != kept) {
    fail(ErrorCode::kCorruptFile, "{}: has {} values, the bitmask keeps {}",
         subject_of(values), shape_text(values.shape), kept);
  }
  w.dtype = values.dtype;
  const TensorBytes stored = l.reader.read(values);
  w.data.assign(stored.bytes.begin(), stored.bytes.end());
}

}  // namespace

void encode_sparse(const std::string& p, const SparseWeight& w,
                   EncodedLinear& e) {
  const bool two_of_four = w.pattern == SparsePattern::k2of4;
  const std::string prefix = two_of_four && w.bits == 0 ? p : p + ".weight";
  const auto out = static_cast<std::int64_t>(w.out);
  const auto in = static_cast<std::int64_t>(w.in);
  e.tensors.push_back(tensor_of<std::int64_t>(
      prefix + ".shape", DType::kI64,
      two_of_four && w.bits == 0 ? Shape{2, 1} : Shape{2}, {out, in}));
  e.tensors.push_back(tensor_of(prefix + ".bitmask", DType::kU8,
                                {w.out, ceil_div(w.in, 8)}, w.mask));
  if (!two_of_four) {
    const std::vector<std::uint64_t> begins(w.row_offsets.begin(),
                                            w.row_offsets.end() - 1);
    e.tensors.push_back(
        tensor_of(prefix + ".row_offsets", DType::kI64, {w.out}, begins));
  }
  if (w.bits != 0) {
    e.extension.sparse_2of4 = two_of_four;
    encode_codes(p, w, e);
    return;
  }
  const Shape shape =
      two_of_four ? Shape{w.out, w.in / 2} : Shape{w.row_offsets.back()};
  e.tensors.push_back({.name = prefix + ".compressed",
                       .dtype = w.dtype,
                       .shape = shape,
                       .bytes = w.data});
}

bool is_sparse_linear(const StoredLinear& l) {
  return l.find(".bitmask") != nullptr || l.find(".weight.bitmask") != nullptr;
}

PackedWeight read_sparse_linear(const StoredLinear& l) {
  const bool legacy_24 = l.find(".bitmask") != nullptr;
  const std::string prefix = legacy_24 ? "" : ".weight";
  SparseWeight w;
  std::tie(w.out, w.in) = read_matrix_shape(l, prefix + ".shape");
  const TensorInfo& mask = l.require(prefix + ".bitmask");
  require_shape(mask, Shape{w.out, ceil_div(w.in, 8)});
  w.mask = elements_of<std::uint8_t>(l.reader, mask, DType::kU8);
  w.row_offsets = count_rows(w, mask);
  check_row_offsets(l, w);
  if (legacy_24 || l.extension.sparse_2of4) w.pattern = SparsePattern::k2of4;
  const TensorInfo& values = l.require(prefix + ".compressed");
  if (l.extension.sparse_bits != 0) {
    read_codes(l, values, w);
  } else {
    read_numbers(l, values, w);
  }
  return w;
}

}  // namespace llmpress

// An octet an element: int-quantized.
#include <algorithm>

#include "formats/linears/compressed_tensors_parts.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

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

bool is_int_quantized(const StoredLinear& l) {
  const TensorInfo* const weight = l.find(".weight");
  return weight != nullptr && weight->dtype == DType::kI8 &&
         l.find(".weight_scale") != nullptr;
}

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

void encode_weight(const std::string& p, const Int8Weight& w,
                   EncodedLinear& e) {
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

}  // namespace llmpress

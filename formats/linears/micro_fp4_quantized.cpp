// 4-bit floats in groups: nvfp4- and mxfp4-pack-quantized.

#include "compress/core/checked.h"
#include "formats/linears/compressed_tensors_parts.h"

namespace llmpress {
namespace {

using Shape = std::vector<std::size_t>;

}  // namespace

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

void encode_weight(const std::string& p, const MicroFp4Weight& w,
                   EncodedLinear& e) {
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

}  // namespace llmpress

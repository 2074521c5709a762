#include "formats/linears/ggml_blocks.h"

#include <cstdint>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

GgmlType type_of(const StoredLinear& l) {
  const TensorInfo& info = l.require(".ggml_type");
  const auto stored = integers_of(l.reader, info);
  if (stored.size() == 1 && stored[0] >= 0 && stored[0] <= 255) {
    const auto type = ggml_type_of_id(static_cast<std::uint32_t>(stored[0]));
    if (type && facts(*type).elements > 1) return *type;
  }
  fail(ErrorCode::kCorruptFile, "{}: is not the number of a block type",
       subject_of(info));
}

}  // namespace

void encode_ggml_blocks(const std::string& name, const GgmlWeight& weight,
                        EncodedLinear& encoded) {
  encoded.scheme.format = kOwnFormat;
  encoded.tensors.push_back(tensor_of(name + ".ggml_blocks", DType::kU8,
                                      {weight.out, weight.row_bytes()},
                                      weight.blocks));
  encoded.tensors.push_back(
      tensor_of<std::int32_t>(name + ".ggml_type", DType::kI32, {1},
                              {static_cast<std::int32_t>(weight.type)}));
}

bool is_ggml_blocks(const StoredLinear& l) {
  return l.find(".ggml_blocks") != nullptr;
}

PackedWeight read_ggml_blocks(const StoredLinear& l) {
  const TensorInfo& info = l.require(".ggml_blocks");
  const auto [out, octets] = require_matrix(info);
  GgmlWeight w{.out = out, .type = type_of(l)};
  const GgmlTypeFacts& f = facts(w.type);
  if (octets % f.bytes != 0) {
    fail(ErrorCode::kCorruptFile,
         "{}: a row is no whole number of blocks of {}", subject_of(info),
         f.name);
  }
  w.in = checked_mul(octets / f.bytes, f.elements, subject_of(info));
  w.blocks = elements_of<std::byte>(l.reader, info, DType::kU8);
  return w;
}

}  // namespace llmpress

#include "formats/gguf/gguf_joined.h"

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/gguf/gguf_parts.h"

namespace llmpress {
namespace {

// As the folder has it: rows of `columns`.
struct Extent {
  std::size_t rows = 0, columns = 0;
};

Extent extent_of(const GgufTensor& tensor, GgufChange change) {
  const auto& shape = tensor.shape;
  if (is_transposed_part(change)) {
    if (shape.size() != 3) return {};
    return {checked_mul(shape[0], shape[2], tensor.name), shape[1]};
  }
  if (shape.empty() || shape.size() > 3) return {};
  if (shape.size() == 1) return {shape[0], 1};
  if (shape.size() == 2) return {shape[0], shape[1]};
  return {checked_mul(shape[0], shape[1], tensor.name), shape[2]};
}

[[noreturn]] void refuse(const GgufFile& file, const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", file.metadata().origin(), what);
}

Extent joined_extent(const GgufFile& file, const std::string& name,
                     std::span<const GgufPiece> pieces,
                     const GgufRowSizes& sizes) {
  Extent whole;
  for (const GgufPiece& piece : pieces) {
    const GgufTensor& tensor = file.tensors()[piece.tensor];
    const Extent extent = extent_of(tensor, piece.change);
    if (extent.rows == 0 || extent.columns == 0 ||
        (whole.rows != 0 && extent.columns != whole.columns)) {
      refuse(file, formatted("tensor '{}' does not fit as a part of '{}'",
                             tensor.name, name));
    }
    whole.rows = checked_add(whole.rows, extent.rows, name);
    whole.columns = extent.columns;
  }
  const std::size_t wanted = gguf_joined_rows(pieces[0].change, sizes);
  if (pieces.size() != 2 || pieces[0].change == pieces[1].change ||
      (wanted != 0 && wanted != whole.rows)) {
    refuse(file, formatted("the parts of '{}' do not make it: {} rows of {}",
                           name, whole.rows, wanted));
  }
  return whole;
}

bool is_plain_alike(const GgufFile& file, std::span<const GgufPiece> pieces) {
  const GgmlType type = file.tensors()[pieces[0].tensor].type;
  for (const GgufPiece& piece : pieces) {
    if (file.tensors()[piece.tensor].type != type) return false;
  }
  return facts(type).plain.has_value() && facts(type).plain != DType::kF64 &&
         facts(*facts(type).plain).floating;
}

// A piece's rows in F32.
std::vector<std::byte> decoded_rows(const GgufFile& file,
                                    const GgufPiece& piece, Extent extent,
                                    const GgufRowSizes& sizes) {
  const GgufTensor& tensor = file.tensors()[piece.tensor];
  std::vector<float> values(
      checked_mul(extent.rows, extent.columns, tensor.name));
  decode_ggml(tensor.type, file.read(tensor).bytes, values);
  if (is_transposed_part(piece.change)) {
    values = transposed_each(values, sizes.heads, extent.columns,
                             extent.rows / sizes.heads);
  }
  std::vector<std::byte> out(values.size() * sizeof(float));
  encode_floats(DType::kF32, values, out);
  return out;
}

}  // namespace

TensorInfo joined_info(const GgufFile& file, const std::string& name,
                       std::span<const GgufPiece> pieces,
                       const GgufRowSizes& sizes) {
  const Extent whole = joined_extent(file, name, pieces, sizes);
  for (const GgufPiece& piece : pieces) {
    const GgufTensor& tensor = file.tensors()[piece.tensor];
    const auto rows = gguf_part_rows(piece.change, whole.rows, sizes);
    const std::size_t found = extent_of(tensor, piece.change).rows;
    if (rows.size() != found) {
      refuse(file, formatted("tensor '{}' has {} rows of '{}', wanted {}",
                             tensor.name, found, name, rows.size()));
    }
  }
  const GgufTensor& first = file.tensors()[pieces[0].tensor];
  const bool plain = is_plain_alike(file, pieces) &&
                     !is_transposed_part(pieces[0].change) &&
                     !is_transposed_part(pieces[1].change);
  const bool vector = first.shape.size() == 1;
  TensorInfo info{.name = name,
                  .dtype = plain ? *facts(first.type).plain : DType::kF32,
                  .shape = {whole.rows},
                  .file = file.file_of(first)};
  if (!vector) info.shape.push_back(whole.columns);
  info.bytes =
      bytes_of(info.dtype, checked_mul(whole.rows, whole.columns, name));
  return info;
}

std::vector<std::byte> read_joined(const GgufFile& file, const TensorInfo& info,
                                   std::span<const GgufPiece> pieces,
                                   const GgufRowSizes& sizes) {
  std::vector<std::byte> out(info.bytes);
  const std::size_t rows = info.shape[0], row_bytes = info.bytes / rows;
  for (const GgufPiece& piece : pieces) {
    const GgufTensor& tensor = file.tensors()[piece.tensor];
    const auto order = gguf_part_rows(piece.change, rows, sizes);
    if (facts(tensor.type).plain == info.dtype &&
        !is_transposed_part(piece.change)) {
      scatter_rows(file.read(tensor).bytes, order, row_bytes, out);
      continue;
    }
    scatter_rows(
        decoded_rows(file, piece, extent_of(tensor, piece.change), sizes),
        order, row_bytes, out);
  }
  return out;
}

}  // namespace llmpress

#include "formats/gguf/gguf_model.h"

#include <algorithm>
#include <cstring>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/gguf/gguf_names.h"

namespace llmpress {
namespace {

TensorBytes owned(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {*owner, owner};
}

// A gain without the 1 that GGUF adds.
std::vector<std::byte> less_one(GgmlType type, std::span<const std::byte> bytes,
                                std::size_t count) {
  std::vector<float> values(count);
  decode_ggml(type, bytes, values);
  for (float& v : values) v -= 1;
  std::vector<std::byte> out(count * sizeof(float));
  encode_floats(DType::kF32, values, out);
  return out;
}

std::size_t heads_of(const GgufReading& reading, GgufChange change) {
  const std::size_t heads = reading.require_size("attention.head_count");
  if (change != GgufChange::kKeyRows) return heads;
  const auto counts =
      reading.file.metadata().numbers(reading.key("attention.head_count_kv"));
  return counts.empty() ? heads : static_cast<std::size_t>(counts[0]);
}

GgufReading reading_of(const GgufFile& file, std::string_view architecture) {
  return {.file = file, .architecture = architecture};
}

}  // namespace

std::vector<std::byte> turn_head_rows(std::span<const std::byte> rows,
                                      std::size_t count, std::size_t row_bytes,
                                      std::size_t heads, bool to_pairs) {
  std::vector<std::byte> out(rows.size());
  const std::size_t head = count / heads, half = head / 2;
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t j = 0; j < head; ++j) {
      // Coordinate j of the folder's head; its partner is half a head away.
      const std::size_t beside = j % half * 2 + j / half;
      const std::size_t from = h * head + (to_pairs ? j : beside);
      const std::size_t to = h * head + (to_pairs ? beside : j);
      std::memcpy(out.data() + to * row_bytes, rows.data() + from * row_bytes,
                  row_bytes);
    }
  }
  return out;
}

std::vector<std::byte> transposed_octets(std::span<const std::byte> matrix,
                                         std::size_t rows, std::size_t cols,
                                         std::size_t element_bytes) {
  std::vector<std::byte> out(matrix.size());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      std::memcpy(out.data() + (c * rows + r) * element_bytes,
                  matrix.data() + (r * cols + c) * element_bytes,
                  element_bytes);
    }
  }
  return out;
}

GgufModel::GgufModel(GgufFile file) : file_(std::move(file)) {
  const auto name = file_.metadata().text("general.architecture");
  if (!name) {
    fail(ErrorCode::kInvalidInput,
         "{}: not a model: it has no general.architecture",
         file_.metadata().origin());
  }
  architecture_ = &gguf_architecture_of(reading_of(file_, *name));
  config_json_ = gguf_config_json(file_, *architecture_);
  for (const auto& [key, value] : file_.metadata().all()) {
    strings_[key] = to_text(value);
  }
  for (std::size_t t = 0; t < file_.tensors().size(); ++t) add_views(t);
  std::ranges::sort(views_, {}, [](const GgufView& v) { return v.info.name; });
  for (const GgufView& view : views_) {
    if (!infos_.empty() && infos_.back().name == view.info.name) {
      fail(ErrorCode::kCorruptFile, "{}: two tensors are '{}'",
           file_.metadata().origin(), view.info.name);
    }
    infos_.push_back(view.info);
  }
}

void GgufModel::add_views(std::size_t index) {
  const GgufTensor& tensor = file_.tensors()[index];
  const auto place = our_name(*architecture_, tensor.name);
  if (!place) {
    if (is_gguf_setting(tensor.name)) return;
    fail(ErrorCode::kUnsupported,
         "{}: tensor '{}' is no part of architecture '{}' that is known",
         file_.metadata().origin(), tensor.name, architecture_->name);
  }
  const auto& shape = tensor.shape;
  const bool bias = tensor.name.ends_with(".bias");
  const std::size_t wanted = (bias ? 1u : 2u) + (place->stacked ? 1u : 0u);
  if (shape.empty() || shape.size() > wanted ||
      (place->stacked && shape.size() != wanted)) {
    fail(ErrorCode::kInvalidInput,
         "{}: tensor '{}' has {} dimensions, wanted {}",
         file_.metadata().origin(), tensor.name, shape.size(), wanted);
  }
  const bool vector = shape.size() == 1 || (place->stacked && bias);
  const std::size_t experts = place->stacked ? shape[0] : 1;
  const std::size_t rows = vector ? 1 : shape[shape.size() - 2];
  for (std::size_t e = 0; e < experts; ++e) {
    GgufView view{.tensor = index,
                  .rows = rows,
                  .columns = shape.back(),
                  .first_row = e * rows,
                  .change = place->change,
                  .vector = vector,
                  .blocks = !facts(tensor.type).plain.has_value()};
    if (view.change == GgufChange::kTransposed && vector) {
      view.change = GgufChange::kNone;
    }
    std::string name = place->name;
    if (place->stacked) {
      name.replace(name.find("{e}"), 3, formatted("{}", e));
    }
    add_view(std::move(view), std::move(name));
  }
}

void GgufModel::add_view(GgufView view, std::string name) {
  const GgufTensor& tensor = file_.tensors()[view.tensor];
  const GgmlTypeFacts& f = facts(tensor.type);
  const bool vector = view.vector;
  TensorInfo& info = view.info;
  info.name = std::move(name);
  info.file = file_.file_of(tensor);
  const std::size_t row_bytes = view.columns / f.elements * f.bytes;
  info.bytes = view.rows * row_bytes;
  if (view.change == GgufChange::kQueryRows ||
      view.change == GgufChange::kKeyRows) {
    view.heads = heads_of(reading_of(file_, architecture_->name), view.change);
    const std::size_t rows = vector ? view.columns : view.rows;
    if (view.heads == 0 || rows % (2 * view.heads) != 0) {
      fail(ErrorCode::kInvalidInput, "{}: tensor '{}': {} rows of {} heads",
           file_.metadata().origin(), tensor.name, rows, view.heads);
    }
  }
  if (view.blocks) {
    if (vector || view.change == GgufChange::kPlusOne) {
      fail(ErrorCode::kUnsupported, "{}: tensor '{}' is a vector of type {}",
           file_.metadata().origin(), tensor.name, f.name);
    }
    info.dtype = DType::kU8;
    info.shape = {view.rows, row_bytes};
  } else if (view.change == GgufChange::kPlusOne) {
    info.dtype = DType::kF32;
    info.shape = tensor.shape;
    info.bytes = view.columns * sizeof(float);
  } else {
    info.dtype = *f.plain;
    info.shape = vector && view.change != GgufChange::kOneRow
                     ? std::vector{view.columns}
                     : std::vector{view.rows, view.columns};
    if (view.change == GgufChange::kTransposed) {
      std::swap(info.shape[0], info.shape[1]);
    }
  }
  views_.push_back(std::move(view));
}

TensorBytes GgufModel::read(const TensorInfo& info) const {
  const auto index =
      static_cast<std::size_t>(&require(info.name) - infos_.data());
  const GgufView& view = views_[index];
  const GgufTensor& tensor = file_.tensors()[view.tensor];
  const GgmlTypeFacts& f = facts(tensor.type);
  const std::size_t row_bytes = view.columns / f.elements * f.bytes;
  TensorBytes whole = file_.read(tensor);
  whole.bytes =
      whole.bytes.subspan(view.first_row * row_bytes, view.rows * row_bytes);
  const bool vector = view.vector;
  switch (view.change) {
    case GgufChange::kNone:
    case GgufChange::kOneRow:
    case GgufChange::kBare:
      return whole;
    case GgufChange::kQueryRows:
    case GgufChange::kKeyRows:
      return owned(vector ? turn_head_rows(whole.bytes, view.columns, f.bytes,
                                           view.heads, false)
                          : turn_head_rows(whole.bytes, view.rows, row_bytes,
                                           view.heads, false));
    case GgufChange::kPlusOne:
      return owned(less_one(tensor.type, whole.bytes, view.columns));
    case GgufChange::kTransposed:
      if (view.blocks) return whole;
      return owned(
          transposed_octets(whole.bytes, view.rows, view.columns, f.bytes));
  }
  return whole;
}

const GgufView* GgufModel::find_blocks(std::string_view module) const {
  const TensorInfo* const info = find(std::string(module) + ".weight");
  if (info == nullptr) return nullptr;
  const GgufView& view = views_[static_cast<std::size_t>(info - infos_.data())];
  return view.blocks ? &view : nullptr;
}

GgmlWeight GgufModel::read_blocks(const GgufView& view) const {
  const TensorBytes bytes = read(view.info);
  return {.out = view.rows,
          .in = view.columns,
          .type = file_.tensors()[view.tensor].type,
          .blocks = {bytes.bytes.begin(), bytes.bytes.end()}};
}

}  // namespace llmpress

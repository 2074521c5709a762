#include "formats/gguf/gguf_model.h"

#include <algorithm>
#include <cstring>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/ggml/ggml_block.h"
#include "formats/gguf/gguf_names.h"
#include "formats/gguf/gguf_parts.h"

namespace llmpress {
namespace {

TensorBytes owned(std::vector<std::byte> bytes) {
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {*owner, owner};
}

std::vector<std::byte> with_other_values(GgmlType type, GgufChange change,
                                         std::span<const std::byte> bytes,
                                         std::size_t count,
                                         const GgufRowSizes& sizes) {
  std::vector<float> values(count);
  decode_ggml(type, bytes, values);
  change_values(change, false, values, sizes);
  std::vector<std::byte> out(count * sizeof(float));
  encode_floats(DType::kF32, values, out);
  return out;
}

GgufReading reading_of(const GgufFile& file, std::string_view architecture) {
  return {.file = file, .architecture = architecture};
}

}  // namespace

GgufModel::GgufModel(GgufFile file) : file_(std::move(file)) {
  const auto name = file_.metadata().text("general.architecture");
  if (!name) {
    fail(ErrorCode::kInvalidInput,
         "{}: not a model: it has no general.architecture",
         file_.metadata().origin());
  }
  architecture_ = &gguf_architecture_of(reading_of(file_, *name));
  config_json_ = gguf_config_json(file_, *architecture_);
  sizes_ = gguf_row_sizes(file_.metadata(), architecture_->name);
  for (const auto& [key, value] : file_.metadata().all()) {
    strings_[key] = to_text(value);
  }
  for (std::size_t t = 0; t < file_.tensors().size(); ++t) add_views(t);
  for (const auto& [joined, pieces] : pieces_) {
    views_.push_back(
        {.info = joined_info(file_, joined, pieces, sizes_), .pieces = pieces});
  }
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
  const auto place = our_name(*architecture_, tensor.name, &file_);
  if (!place) {
    if (is_gguf_setting(*architecture_, tensor.name)) return;
    fail(ErrorCode::kUnsupported,
         "{}: tensor '{}' is no part of architecture '{}' that is known",
         file_.metadata().origin(), tensor.name, architecture_->name);
  }
  if (is_part(place->change)) {
    pieces_[place->name].push_back({.tensor = index, .change = place->change});
    return;
  }
  const bool bias = tensor.name.ends_with(".bias");
  check_shape(tensor, (bias ? 1u : 2u) + (place->stacked ? 1u : 0u),
              place->stacked);
  auto shape = tensor.shape;
  const std::size_t experts = place->stacked ? shape[0] : 1;
  if (place->stacked) shape.erase(shape.begin());
  const bool vector = shape.size() == 1;
  const std::size_t rows = vector ? 1 : shape[0];
  for (std::size_t e = 0; e < experts; ++e) {
    std::string name = place->name;
    if (place->stacked) {
      name.replace(name.find("{e}"), 3, formatted("{}", e));
    }
    add_view({.tensor = index,
              .rows = rows,
              .columns = shape.back(),
              .first_row = e * rows,
              .change = place->change,
              .vector = vector,
              .blocks = !facts(tensor.type).plain.has_value()},
             std::move(name));
  }
}

void GgufModel::check_shape(const GgufTensor& tensor, std::size_t wanted,
                            bool exactly) const {
  const std::size_t found = tensor.shape.size();
  if (found != 0 && found <= wanted && (!exactly || found == wanted)) return;
  fail(ErrorCode::kInvalidInput, "{}: tensor '{}' has {} dimensions, wanted {}",
       file_.metadata().origin(), tensor.name, found, wanted);
}

void GgufModel::add_view(GgufView view, std::string name) {
  const GgufTensor& tensor = file_.tensors()[view.tensor];
  const GgmlTypeFacts& f = facts(tensor.type);
  TensorInfo& info = view.info;
  info.name = std::move(name);
  info.file = file_.file_of(tensor);
  const std::size_t row_bytes = view.columns / f.elements * f.bytes;
  info.bytes = view.rows * row_bytes;
  if (moves_rows(view.change)) {
    try {
      (void)gguf_row_order(view.change, view.vector ? view.columns : view.rows,
                           sizes_);
    } catch (const Error& error) {
      fail(ErrorCode::kInvalidInput, "{}: tensor '{}': {}",
           file_.metadata().origin(), tensor.name, error.what());
    }
  }
  if (view.blocks) {
    if (view.vector || view.change == GgufChange::kGroups ||
        changes_values(view.change)) {
      fail(ErrorCode::kUnsupported, "{}: tensor '{}' is a vector of type {}",
           file_.metadata().origin(), tensor.name, f.name);
    }
    info.dtype = DType::kU8;
    info.shape = {view.rows, row_bytes};
  } else {
    info.dtype = *f.plain;
    info.shape = folder_shape(
        view.change, view.vector ? std::vector{view.columns}
                                 : std::vector{view.rows, view.columns});
    if (changes_values(view.change)) {
      info.dtype = DType::kF32;
      info.bytes = view.rows * view.columns * sizeof(float);
    }
  }
  views_.push_back(std::move(view));
}

TensorBytes GgufModel::read(const TensorInfo& info) const {
  const auto index =
      static_cast<std::size_t>(&require(info.name) - infos_.data());
  const GgufView& view = views_[index];
  if (!view.pieces.empty()) {
    return owned(read_joined(file_, view.info, view.pieces, sizes_));
  }
  const GgufTensor& tensor = file_.tensors()[view.tensor];
  const GgmlTypeFacts& f = facts(tensor.type);
  const std::size_t row_bytes = view.columns / f.elements * f.bytes;
  TensorBytes whole = file_.read(tensor);
  whole.bytes =
      whole.bytes.subspan(view.first_row * row_bytes, view.rows * row_bytes);
  if (changes_values(view.change)) {
    whole = owned(with_other_values(tensor.type, view.change, whole.bytes,
                                    view.rows * view.columns, sizes_));
  }
  if (moves_rows(view.change)) {
    const auto order = gguf_row_order(
        view.change, view.vector ? view.columns : view.rows, sizes_);
    return owned(reordered_rows(whole.bytes, order, false));
  }
  if (moves_columns(view.change) && !view.vector) {
    return owned(reordered_columns(whole.bytes, view.rows, view.columns,
                                   f.elements, sizes_, false));
  }
  if (view.change == GgufChange::kTransposed && !view.vector && !view.blocks) {
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

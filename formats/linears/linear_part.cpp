#include "formats/linears/linear_part.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/packed/weight_rows.h"
#include "formats/containers/typed_tensors.h"
#include "formats/linears/compressed_tensors.h"
#include "formats/linears/dense_linear.h"

namespace llmpress {
namespace {

constexpr std::string_view kShape = ".weight_shape";
// With a first dimension of rows, or of words that several rows share; or one for
// all rows.
constexpr std::array<std::string_view, 4> kByRows = {
    ".weight", ".weight_packed", ".weight_scale", ".weight_zero_point"};
// With nothing of a row.
constexpr std::array<std::string_view, 5> kOfAllRows = {
    kShape, ".weight_g_idx", ".bias", ".input_scale", ".input_zero_point"};

bool lies_by_rows(std::string_view suffix, const TensorInfo& info) {
  return std::ranges::find(kByRows, suffix) != kByRows.end() &&
         !info.shape.empty() && info.shape[0] != 1;
}

// Of the tensors of a Linear.
std::span<const TensorInfo> tensors_of(const TensorReader& reader,
                                       const std::string& name) {
  const std::string prefix = name + ".";
  const auto all = reader.tensors();
  const auto first =
      std::ranges::lower_bound(all, prefix, {}, &TensorInfo::name);
  auto end = first;
  while (end != all.end() && end->name.starts_with(prefix)) ++end;
  return {first, end};
}

// The tensors of a Linear with some of its rows.
class RowsReader : public TensorReader {
 public:
  RowsReader(const StoredLinear& linear, std::size_t out, Stretch rows)
      : all_(linear.reader), name_(linear.name), rows_(rows) {
    for (const TensorInfo& whole : tensors_of(all_, name_)) {
      infos_.push_back(whole);
      begins_.push_back(0);
      TensorInfo& info = infos_.back();
      if (!lies_by_rows(suffix_of(info), info)) continue;
      const std::size_t lines = info.shape[0], line = info.bytes / lines;
      const std::size_t first = rows.first * lines / out;
      info.shape[0] = (rows.first + rows.count) * lines / out - first;
      info.bytes = info.shape[0] * line;
      begins_.back() = first * line;
    }
  }

  std::span<const TensorInfo> tensors() const override { return infos_; }

  TensorBytes read(const TensorInfo& info) const override {
    const TensorBytes whole = all_.read(all_.require(info.name));
    if (suffix_of(info) == kShape) return shape(whole);
    const auto i = static_cast<std::size_t>(find(info.name) - infos_.data());
    return {whole.bytes.subspan(begins_[i], info.bytes), whole.owner};
  }

  const std::map<std::string, std::string>& metadata() const override {
    return all_.metadata();
  }

 private:
  std::string_view suffix_of(const TensorInfo& info) const {
    return std::string_view(info.name).substr(name_.size());
  }

  // [rows, in] instead of [out, in].
  TensorBytes shape(const TensorBytes& whole) const {
    const auto octets = std::make_shared<std::vector<std::byte>>(
        whole.bytes.begin(), whole.bytes.end());
    const std::uint64_t rows = rows_.count;
    std::memcpy(octets->data(), &rows,
                std::min(octets->size() / 2, sizeof rows));
    return {*octets, octets};
  }

  const TensorReader& all_;
  std::string name_;
  Stretch rows_;
  std::vector<TensorInfo> infos_{};
  std::vector<std::size_t> begins_{};  // of each, in the whole tensor's octets
};

// [out, in] of a Linear whose tensors can be cut every `grain` rows as they lie;
// nothing of another one.
std::optional<std::pair<std::size_t, std::size_t>> shape_if_cut(
    const StoredLinear& linear, const LinearForm& form, std::size_t grain) {
  std::pair<std::size_t, std::size_t> shape;
  if (form.matches == is_pack_quantized) {
    shape = read_matrix_shape(linear);
  } else if (form.matches == is_dense_linear ||
             form.matches == is_int_quantized ||
             form.matches == is_float_quantized) {
    shape = require_matrix(linear.require(".weight"));
  } else {
    return std::nullopt;
  }
  for (const TensorInfo& info : tensors_of(linear.reader, linear.name)) {
    const auto suffix = std::string_view(info.name).substr(linear.name.size());
    const bool cut = lies_by_rows(suffix, info);
    const bool known =
        cut || std::ranges::find(kByRows, suffix) != kByRows.end() ||
        std::ranges::find(kOfAllRows, suffix) != kOfAllRows.end();
    if (!known || (cut && grain * info.shape[0] % shape.first != 0)) {
      return std::nullopt;
    }
  }
  return shape;
}

}  // namespace

LinearPart take_part(LinearWeights whole, const RowChoice& choice) {
  LinearPart part{.out = rows_of(whole.weight),
                  .in = cols_of(whole.weight),
                  .grain = row_grain(whole.weight, choice.grain)};
  if (part.grain == 0 || part.out <= part.grain) {
    part.grain = 0;
    part.rows = {0, part.out};
    part.linear = std::move(whole);
    return part;
  }
  part.rows = choice.choose(part.out, part.grain);
  PackedWeight rows;
  if (part.rows.count != 0) rows = take_rows(whole.weight, part.rows);
  part.linear = std::move(whole);
  part.linear.weight = std::move(rows);
  return part;
}

LinearPart read_linear_part(const StoredLinear& linear,
                            const std::string& where, const RowChoice& choice) {
  const LinearForm& form = require_linear_form(linear, where);
  const auto shape = shape_if_cut(linear, form, choice.grain);
  if (!shape || shape->first <= choice.grain) {
    return take_part(read_linear(linear, where), choice);
  }
  const auto [out, in] = *shape;
  LinearPart part{.out = out,
                  .in = in,
                  .grain = choice.grain,
                  .rows = choice.choose(out, choice.grain),
                  .linear = read_linear_rest(linear, form, out, in, where)};
  if (part.rows.count == 0) return part;
  const RowsReader reader(linear, out, part.rows);
  part.linear.weight =
      read_linear_weight({reader, linear.name, linear.scheme, linear.extension,
                          linear.int8_threshold, linear.method},
                         form, where);
  return part;
}

}  // namespace llmpress

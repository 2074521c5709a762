#include "formats/containers/tensor_io.h"

#include <algorithm>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/containers/torch_file.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/foreign_file.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

void check_plain_float(const TensorInfo& info) {
  if (!is_plain_float(info.dtype)) {
    fail(ErrorCode::kInvalidInput, "{}: is {}, wanted F64, F32, F16 or BF16",
         subject_of(info), facts(info.dtype).name);
  }
}

std::vector<float> decode_finite(const TensorReader& reader,
                                 const TensorInfo& info) {
  check_plain_float(info);
  std::vector<float> values(checked_elements(info.shape, subject_of(info)));
  decode_floats(info.dtype, reader.read(info).bytes, values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      const std::size_t cols = info.shape.empty() ? 1 : info.shape.back();
      fail(ErrorCode::kInvalidInput, "{}: value [{}, {}] is {:g}, not finite",
           subject_of(info), i / cols, i % cols, values[i]);
    }
  }
  return values;
}

}  // namespace

const TensorInfo* TensorReader::find(std::string_view name) const {
  const auto all = tensors();
  const auto at = std::lower_bound(
      all.begin(), all.end(), name,
      [](const TensorInfo& info, std::string_view n) { return info.name < n; });
  return at != all.end() && at->name == name ? &*at : nullptr;
}

const TensorInfo& TensorReader::require(std::string_view name) const {
  const TensorInfo* const info = find(name);
  if (info != nullptr) return *info;
  const std::string where = tensors().empty() ? "model" : tensors()[0].file;
  fail(ErrorCode::kInvalidInput, "{}: tensor '{}' is missing", where, name);
}

MatrixF read_matrix(const TensorReader& reader, std::string_view name) {
  const TensorInfo& info = reader.require(name);
  if (info.shape.size() != 1 && info.shape.size() != 2) {
    fail(ErrorCode::kInvalidInput, "{}: has shape {}, wanted 1 or 2 dimensions",
         subject_of(info), shape_text(info.shape));
  }
  const std::size_t rows = info.shape.size() == 2 ? info.shape[0] : 1;
  return {decode_finite(reader, info), rows, info.shape.back()};
}

std::vector<float> read_vector(const TensorReader& reader,
                               std::string_view name, std::size_t size) {
  const TensorInfo& info = reader.require(name);
  if (info.shape != std::vector<std::size_t>{size}) {
    fail(ErrorCode::kInvalidInput, "{}: has shape {}, wanted [{}]",
         subject_of(info), shape_text(info.shape), size);
  }
  return decode_finite(reader, info);
}

std::unique_ptr<TensorReader> open_tensor_file(const fs::path& path) {
  return is_torch_file(path) ? open_torch_file(path) : open_safetensors(path);
}

std::unique_ptr<TensorReader> open_tensors(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (!path_exists(path)) {
      fail(ErrorCode::kIo, "{}: no such file or directory", path);
    }
    return is_hdf5_file(path) ? open_hdf5_tensors(path)
                              : open_tensor_file(path);
  }
  const fs::path single = path / kSingleFileName, index = path / kIndexFileName;
  if (path_exists(single)) return open_safetensors(single);
  if (path_exists(index)) return open_sharded(index);
  if (const auto torch = find_torch_weights(path)) {
    return torch->extension() == ".json" ? open_sharded(*torch)
                                         : open_torch_file(*torch);
  }
  const std::string instead = describe_missing_weights(path);
  fail(ErrorCode::kIo, "{}: has neither {} nor {}{}", path, kSingleFileName,
       kIndexFileName, instead.empty() ? "" : "; " + instead);
}

}  // namespace llmpress

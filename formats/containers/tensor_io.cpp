#include "formats/containers/tensor_io.h"

#include <algorithm>
#include <cmath>

#include "compress/core/checked.h"
#include "compress/core/error.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/foreign_file.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

void check_plain_float(const TensorInfo& info) {
  if (!is_plain_float(info.dtype)) {
    throw Error(ErrorCode::kInvalidInput,
                subject_of(info) + ": is " +
                    std::string(facts(info.dtype).name) +
                    ", wanted F64, F32, F16 or BF16");
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
      throw Error(ErrorCode::kInvalidInput,
                  subject_of(info) + ": value [" + std::to_string(i / cols) +
                      ", " + std::to_string(i % cols) + "] is " +
                      std::to_string(values[i]) + ", not finite");
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
  throw Error(ErrorCode::kInvalidInput,
              where + ": tensor '" + std::string(name) + "' is missing");
}

MatrixF read_matrix(const TensorReader& reader, std::string_view name) {
  const TensorInfo& info = reader.require(name);
  if (info.shape.size() != 1 && info.shape.size() != 2) {
    throw Error(ErrorCode::kInvalidInput, subject_of(info) + ": has shape " +
                                              shape_text(info.shape) +
                                              ", wanted 1 or 2 dimensions");
  }
  const std::size_t rows = info.shape.size() == 2 ? info.shape[0] : 1;
  return {decode_finite(reader, info), rows, info.shape.back()};
}

std::vector<float> read_vector(const TensorReader& reader,
                               std::string_view name, std::size_t size) {
  const TensorInfo& info = reader.require(name);
  if (info.shape != std::vector<std::size_t>{size}) {
    throw Error(ErrorCode::kInvalidInput,
                subject_of(info) + ": has shape " + shape_text(info.shape) +
                    ", wanted [" + std::to_string(size) + "]");
  }
  return decode_finite(reader, info);
}

std::unique_ptr<TensorReader> open_tensors(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (!path_exists(path)) {
      throw Error(ErrorCode::kIo,
                  path.string() + ": no such file or directory");
    }
    return is_hdf5_file(path) ? open_hdf5_tensors(path)
                              : open_safetensors(path);
  }
  const fs::path single = path / kSingleFileName, index = path / kIndexFileName;
  if (path_exists(single)) return open_safetensors(single);
  if (path_exists(index)) return open_sharded(index);
  const std::string instead = describe_missing_weights(path);
  throw Error(ErrorCode::kIo, path.string() + ": has neither " +
                                  std::string(kSingleFileName) + " nor " +
                                  std::string(kIndexFileName) +
                                  (instead.empty() ? "" : "; " + instead));
}

}  // namespace llmpress

#include "formats/adapters/difference_adapter.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/containers/typed_tensors.h"

namespace llmpress {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kShape = ".difference.shape";
constexpr std::string_view kIndices = ".difference.indices";
constexpr std::string_view kValues = ".difference.values";

[[noreturn]] void refuse(const TensorInfo& info, const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", subject_of(info), what);
}

std::string name_of(const std::string& path, std::string_view suffix) {
  return std::string(kPrefix) + path + std::string(suffix);
}

template <class T>
std::vector<T> numbers(const TensorReader& tensors, const TensorInfo& info,
                       DType dtype) {
  require_dtype(info, dtype);
  if (info.shape.size() != 1) refuse(info, "wanted one dimension");
  const TensorBytes data = tensors.read(info);
  std::vector<T> values(data.bytes.size() / sizeof(T));
  if (!values.empty()) {
    std::memcpy(values.data(), data.bytes.data(), data.bytes.size());
  }
  return values;
}

void check_indices(const TensorInfo& info,
                   std::span<const std::uint32_t> indices, std::size_t size) {
  for (std::size_t n = 0; n < indices.size(); ++n) {
    if (indices[n] < size && (n == 0 || indices[n - 1] < indices[n])) continue;
    refuse(info, formatted("index {} is {}: wanted ascending, below {}", n,
                           indices[n], size));
  }
}

SparseDifference read_difference(const TensorReader& tensors,
                                 const std::string& path) {
  const TensorInfo& of_shape = tensors.require(name_of(path, kShape));
  const TensorInfo& of_indices = tensors.require(name_of(path, kIndices));
  const TensorInfo& of_values = tensors.require(name_of(path, kValues));
  const auto shape = numbers<std::int64_t>(tensors, of_shape, DType::kI64);
  constexpr auto kMost = std::int64_t{1} << 31;
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || shape[0] > kMost ||
      shape[1] > kMost) {
    refuse(of_shape, "wanted two sizes from 1 to 2^31");
  }
  SparseDifference read{
      .rows = static_cast<std::size_t>(shape[0]),
      .cols = static_cast<std::size_t>(shape[1]),
      .indices = numbers<std::uint32_t>(tensors, of_indices, DType::kU32),
      .values = numbers<float>(tensors, of_values, DType::kF32)};
  check_indices(of_indices, read.indices,
                checked_mul(read.rows, read.cols, of_shape.name));
  if (read.values.size() != read.indices.size()) {
    refuse(of_values, formatted("{} values for {} indices", read.values.size(),
                                read.indices.size()));
  }
  for (const float value : read.values) {
    if (!std::isfinite(value)) refuse(of_values, "a value is not finite");
  }
  return read;
}

}  // namespace

PeftAdapter read_difference_adapter(const std::filesystem::path& directory) {
  const auto tensors = open_adapter_tensors(directory);
  PeftAdapter adapter;
  for (const TensorInfo& info : tensors->tensors()) {
    std::string_view name = info.name;
    if (!name.starts_with(kPrefix)) refuse(info, "is no part of a difference");
    name.remove_prefix(kPrefix.size());
    for (const std::string_view suffix : {kShape, kIndices, kValues}) {
      if (!name.ends_with(suffix)) continue;
      name.remove_suffix(suffix.size());
      adapter.modules[std::string(name)];
      break;
    }
  }
  for (auto& [path, module] : adapter.modules) {
    module.difference = read_difference(*tensors, path);
  }
  if (adapter.modules.empty() ||
      3 * adapter.modules.size() != tensors->tensors().size()) {
    fail(ErrorCode::kInvalidInput,
         "{}: {} differences of 3 tensors each, found {} tensors", directory,
         adapter.modules.size(), tensors->tensors().size());
  }
  return adapter;
}

void write_difference_adapter(const std::filesystem::path& directory,
                              const std::map<std::string, PeftModule>& modules,
                              const std::string& base_model,
                              const std::map<std::string, std::string>& files) {
  std::vector<NamedTensor> tensors;
  nlohmann::json targets = nlohmann::json::array();
  for (const auto& [path, module] : modules) {
    const SparseDifference& d = module.difference;
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(d.rows),
                                          static_cast<std::int64_t>(d.cols)};
    tensors.push_back(
        tensor_of(name_of(path, kShape), DType::kI64, {2}, shape));
    tensors.push_back(tensor_of(name_of(path, kIndices), DType::kU32,
                                {d.indices.size()}, d.indices));
    tensors.push_back(rounded_tensor(name_of(path, kValues), DType::kF32,
                                     {d.values.size()}, d.values));
    targets.push_back(path);
  }
  const nlohmann::json config = {
      {"base_model_name_or_path", base_model},
      {"peft_type", peft_type_of(AdapterFormat::kDifference)},
      {"target_modules", targets},
      {"task_type", "CAUSAL_LM"}};
  write_adapter_folder(directory, config.dump(2), tensors, files);
}

}  // namespace llmpress

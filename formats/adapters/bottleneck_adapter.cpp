#include "formats/adapters/bottleneck_adapter.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/adapters/adapter_folder.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/typed_tensors.h"
#include "formats/files/json_reader.h"

namespace llmpress {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr const char* kDown = ".adapter_down.weight";
constexpr const char* kDownBias = ".adapter_down.bias";
constexpr const char* kUp = ".adapter_up.weight";
constexpr const char* kUpBias = ".adapter_up.bias";
constexpr std::uint64_t kMostSize = std::uint64_t{1} << 24;

[[noreturn]] void refuse(const TensorInfo& info, const std::string& what) {
  fail(ErrorCode::kInvalidInput, "{}: {}", subject_of(info), what);
}

// The module's path of a tensor of this suffix; empty: it has another.
std::string path_before(const TensorInfo& info, std::string_view suffix) {
  std::string_view name = info.name;
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix) ||
      name.size() <= kPrefix.size() + suffix.size()) {
    return "";
  }
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(suffix.size());
  return std::string(name);
}

bool is_known(const TensorInfo& info) {
  for (const char* const suffix : {kDown, kDownBias, kUp, kUpBias}) {
    if (!path_before(info, suffix).empty()) return true;
  }
  return false;
}

const TensorInfo& part(const TensorReader& tensors, const std::string& path,
                       const char* suffix,
                       const std::vector<std::size_t>& shape) {
  const TensorInfo& info =
      tensors.require(std::string(kPrefix) + path + suffix);
  if (info.shape == shape) return info;
  refuse(info, "has shape " + shape_text(info.shape) + ", wanted " +
                   shape_text(shape));
}

PeftBottleneck read_bottleneck(const TensorReader& tensors,
                               const std::string& path, std::size_t size,
                               std::size_t width) {
  const auto vector = [&](const char* suffix, std::size_t n) {
    return read_vector(tensors, part(tensors, path, suffix, {n}).name, n);
  };
  return {
      .down =
          read_matrix(tensors, part(tensors, path, kDown, {size, width}).name),
      .up = read_matrix(tensors, part(tensors, path, kUp, {width, size}).name),
      .down_bias = vector(kDownBias, size),
      .up_bias = vector(kUpBias, width)};
}

}  // namespace

PeftAdapter read_bottleneck_adapter(const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "adapter_config.json";
  const JsonDocument document(read_file(file), file.string());
  const JsonView root = document.root();
  const auto size =
      static_cast<std::size_t>(root.at("bottleneck_size").natural(kMostSize));
  const std::string activation = root.at("non_linearity").text();
  const auto tensors = open_adapter_tensors(directory);
  PeftAdapter adapter;
  for (const TensorInfo& info : tensors->tensors()) {
    if (!is_known(info)) refuse(info, "is no part of a bottleneck");
    const std::string path = path_before(info, kDown);
    if (path.empty()) continue;
    if (info.shape.size() != 2 || info.shape[1] == 0) {
      refuse(info, "has shape " + shape_text(info.shape) +
                       ", wanted two dimensions, not empty");
    }
    PeftBottleneck read = read_bottleneck(*tensors, path, size, info.shape[1]);
    read.activation = activation;
    adapter.modules[path].bottleneck = std::move(read);
  }
  if (4 * adapter.modules.size() == tensors->tensors().size() &&
      !adapter.modules.empty()) {
    return adapter;
  }
  fail(ErrorCode::kInvalidInput,
       "{}: {} bottlenecks of 4 tensors each, found {} tensors", directory,
       adapter.modules.size(), tensors->tensors().size());
}

void write_bottleneck_adapter(const std::filesystem::path& directory,
                              const std::map<std::string, PeftModule>& modules,
                              const std::string& base_model,
                              const std::map<std::string, std::string>& files) {
  std::vector<NamedTensor> tensors;
  nlohmann::json targets = nlohmann::json::array();
  for (const auto& [path, module] : modules) {
    const PeftBottleneck& b = module.bottleneck.value();
    const auto add = [&, &to = path](const char* suffix,
                                     std::vector<std::size_t> shape,
                                     std::span<const float> values) {
      tensors.push_back(rounded_tensor(std::string(kPrefix) + to + suffix,
                                       DType::kF32, std::move(shape), values));
    };
    add(kDown, {b.down.rows(), b.down.cols()}, b.down.data());
    add(kDownBias, {b.down_bias.size()}, b.down_bias);
    add(kUp, {b.up.rows(), b.up.cols()}, b.up.data());
    add(kUpBias, {b.up_bias.size()}, b.up_bias);
    targets.push_back(path);
  }
  const PeftBottleneck& any = modules.begin()->second.bottleneck.value();
  const nlohmann::json config = {
      {"base_model_name_or_path", base_model},
      {"bottleneck_size", any.down.rows()},
      {"non_linearity", any.activation},
      {"peft_type", peft_type_of(AdapterFormat::kBottleneck)},
      {"target_modules", targets},
      {"task_type", "CAUSAL_LM"}};
  write_adapter_folder(directory, config.dump(2), tensors, files);
}

}  // namespace llmpress

#include "formats/carried_files.h"

#include <algorithm>
#include <array>

#include "formats/artifact_writer.h"
#include "formats/hdf5_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 12> kWeightSuffixes{
    ".safetensors", ".bin",  ".pt",   ".pth",     ".ckpt",       ".h5",
    ".hdf5",        ".gguf", ".onnx", ".msgpack", ".index.json", ".npz"};
constexpr std::array<std::string_view, 7> kReplaced{
    "config.json",   "README.md",   "quantize_config.json", "quant_config.json",
    "llmpress.json", "recipe.yaml", "hf_quant_config.json"};
// Nothing to carry along is larger; weights under another name are.
constexpr std::uintmax_t kMaxBytes = 256u << 20;

bool is_carried(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  std::error_code ignored;
  if (!entry.is_regular_file(ignored) || name.starts_with('.') ||
      entry.file_size(ignored) > kMaxBytes) {
    return false;
  }
  return std::find(kReplaced.begin(), kReplaced.end(), name) ==
             kReplaced.end() &&
         std::none_of(kWeightSuffixes.begin(), kWeightSuffixes.end(),
                      [&](auto suffix) { return name.ends_with(suffix); });
}

}  // namespace

std::map<std::string, std::string> carried_files(const fs::path& source) {
  std::map<std::string, std::string> files;
  std::error_code ignored;
  if (source.empty()) return files;
  if (!fs::is_directory(source, ignored)) {
    if (!is_hdf5_file(source)) return files;
    files = read_hdf5_files(source);
    for (const std::string_view name : kReplaced)
      files.erase(std::string(name));
    return files;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(source)) {
    if (is_carried(entry)) {
      files[entry.path().filename().string()] = read_file(entry.path());
    }
  }
  return files;
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) ==
             std::string_view::npos;
}

}  // namespace llmpress

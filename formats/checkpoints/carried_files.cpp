#include "formats/checkpoints/carried_files.h"

#include <algorithm>
#include <array>
#include <vector>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/gguf.h"
#include "formats/containers/hdf5_file.h"
#include "formats/files/replaceable.h"
#include "formats/gguf/gguf_checkpoint.h"
#include "formats/llama2c/llama2c_file.h"
#include "formats/llama2c/llama2c_tokenizer.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 13> kWeightSuffixes{
    ".safetensors", ".bin",  ".pt",           ".pth",  ".ckpt",
    ".h5",          ".hdf5", ".gguf",         ".onnx", ".msgpack",
    ".index.json",  ".npz",  kPrepackedSuffix};
constexpr std::array<std::string_view, 10> kReplaced{
    "config.json",   "README.md",   "quantize_config.json", "quant_config.json",
    "llmpress.json", "recipe.yaml", "hf_quant_config.json", "structured.json",
    "training.json", "params.json"};
constexpr std::array<std::string_view, 4> kCaches{"__pycache__", "cache",
                                                  "wandb", "runs"};
// Nothing to carry along is larger; weights under another name are.
constexpr std::uintmax_t kMaxBytes = 256u << 20;

bool is_weights(const std::string& name) {
  return std::ranges::any_of(kWeightSuffixes, [&](std::string_view suffix) {
    return name.ends_with(suffix);
  });
}

bool is_carried(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  std::error_code ignored;
  return entry.is_regular_file(ignored) && !name.starts_with('.') &&
         name.find('\\') == std::string::npos &&
         entry.file_size(ignored) <= kMaxBytes && !is_weights(name) &&
         std::ranges::find(kReplaced, name) == kReplaced.end();
}

// Relative paths of what the sub-folder `folder` holds; empty if it is not
// carried.
std::vector<fs::path> files_of_folder(const fs::directory_entry& folder) {
  constexpr int kDeepest = 8;
  const std::string name = folder.path().filename().string();
  if (folder.is_symlink() || !folder.is_directory() || name.starts_with('.') ||
      std::ranges::find(kCaches, name) != kCaches.end()) {
    return {};
  }
  std::vector<fs::path> files;
  std::uintmax_t bytes = 0;
  for (auto at = fs::recursive_directory_iterator(folder.path());
       at != fs::recursive_directory_iterator(); ++at) {
    const std::string file = at->path().filename().string();
    if (file.starts_with('.') ||
        std::ranges::find(kCaches, file) != kCaches.end()) {
      if (at->is_directory()) at.disable_recursion_pending();
      continue;
    }
    if (is_weights(file) || at.depth() > kDeepest) return {};
    if (!at->is_regular_file() || file.find('\\') != std::string::npos) {
      continue;
    }
    bytes += at->file_size();
    if (bytes > kMaxBytes) return {};
    files.push_back(at->path().lexically_relative(folder.path().parent_path()));
  }
  return files;
}

}  // namespace

std::map<std::string, std::string> carried_files(const fs::path& source) {
  std::map<std::string, std::string> files;
  std::error_code ignored;
  if (source.empty()) return files;
  if (fs::is_directory(source, ignored) &&
      !fs::exists(source / "config.json", ignored)) {
    if (const auto gguf = find_gguf(source)) return read_gguf_files(*gguf);
  }
  if (!fs::is_directory(source, ignored)) {
    if (is_gguf_file(source)) return read_gguf_files(source);
    if (is_llama2c_file(source)) return read_llama2c_files(source);
    if (!is_hdf5_file(source)) return files;
    for (auto& [name, content] : read_hdf5_files(source)) {
      std::string file = name;
      std::ranges::replace(file, '\\', '/');
      files[file] = std::move(content);
    }
    for (const std::string_view name : kReplaced)
      files.erase(std::string(name));
    for (const auto& [name, content] : files) {
      for (const fs::path& part : fs::path(name)) {
        if (is_plain_file_name(part.string())) continue;
        fail(ErrorCode::kCorruptFile,
             "{}: file '{}' would lie outside the model's folder", source,
             name);
      }
    }
    return files;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(source)) {
    if (is_carried(entry)) {
      files[entry.path().filename().string()] = read_file(entry.path());
    }
    for (const fs::path& file : files_of_folder(entry)) {
      files[file.string()] = read_file(source / file);
    }
  }
  return files;
}

std::string carried_name_in_hdf5(std::string file) {
  std::ranges::replace(file, '/', '\\');
  return file;
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) ==
             std::string_view::npos;
}

}  // namespace llmpress

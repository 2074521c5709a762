#include "compress/model/model_files.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/consolidated/consolidated.h"
#include "formats/containers/gguf.h"
#include "formats/gguf/gguf_checkpoint.h"

namespace llmpress {

namespace fs = std::filesystem;

namespace {

bool ends_with_any(const std::string& name,
                   std::initializer_list<std::string_view> ends) {
  return std::ranges::any_of(
      ends, [&](std::string_view end) { return name.ends_with(end); });
}

std::vector<fs::path> files_of_folder(const fs::path& folder) {
  std::vector<fs::path> files, tensors, torch;
  const std::string description =
      is_consolidated(folder) ? "params.json" : "config.json";
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == description) {
      files.push_back(entry.path());
    } else if (ends_with_any(name,
                             {".safetensors", ".safetensors.index.json"})) {
      tensors.push_back(entry.path());
    } else if (ends_with_any(name,
                             {".bin", ".bin.index.json", ".pt", ".pth"})) {
      torch.push_back(entry.path());
    }
  }
  const auto& weights = tensors.empty() ? torch : tensors;
  files.insert(files.end(), weights.begin(), weights.end());
  return files;
}

}  // namespace

std::vector<fs::path> model_files(const fs::path& model) {
  std::vector<fs::path> files;
  if (fs::is_directory(model)) {
    files = files_of_folder(model);
  } else if (is_gguf_file(model)) {
    const auto parts = gguf_files(model);
    files.assign(parts.begin(), parts.end());
  } else {
    files.push_back(model);
  }
  std::ranges::sort(files);
  return files;
}

std::string model_state(const fs::path& model) {
  std::string state;
  try {
    for (const fs::path& file : model_files(model)) {
      state +=
          formatted("{} {} {}\n", file.filename().string(), fs::file_size(file),
                    fs::last_write_time(file).time_since_epoch().count());
    }
  } catch (const fs::filesystem_error& error) {
    fail(ErrorCode::kIo, "{}: cannot be looked into: {}", model,
         error.code().message());
  }
  return state;
}

std::string model_sha256(const Checkpoint& checkpoint, ThreadPool& pool) {
  constexpr std::size_t kPart = std::size_t{1} << 28;
  std::string list;
  for (const fs::path& file : model_files(checkpoint.path())) {
    for (const std::string& part : sha256_of_parts(file, kPart, pool)) {
      list += file.filename().string() + " " + part + "\n";
    }
  }
  return sha256_hex(list);
}

}  // namespace llmpress

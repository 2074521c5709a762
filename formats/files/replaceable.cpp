#include "formats/files/replaceable.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/core/error.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/gguf.h"
#include "formats/containers/hdf5_file.h"
#include "formats/containers/tensor_io.h"
#include "formats/files/mapped_file.h"
#include "formats/gguf/gguf_sink.h"
#include "formats/gguf/imatrix.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

[[noreturn]] void refuse(const fs::path& path, const std::string& why) {
  fail(ErrorCode::kInvalidArgument, "{}: {}; not replaced", path, why);
}

// A JSON object that llmpress wrote; null otherwise.
ordered_json read_marked(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return nullptr;
  ordered_json json = ordered_json::parse(read_file(file), nullptr, false);
  const bool ours = json.is_object() && json.contains(kVersionKey) &&
                    json[kVersionKey].is_string();
  return ours ? json : ordered_json(nullptr);
}

bool leads_to_any(const std::string& folder,
                  const std::set<std::string>& files) {
  const auto below = files.lower_bound(folder + "/");
  return below != files.end() && below->starts_with(folder + "/");
}

std::set<std::string> listed_files(const fs::path& folder) {
  const ordered_json json = read_marked(folder / kProvenanceFile);
  std::set<std::string> files;
  if (!json.is_object() || !json.contains("files") ||
      !json["files"].is_array()) {
    refuse(folder, formatted("exists and is not an output of llmpress (no {} "
                             "that lists its files)",
                             kProvenanceFile));
  }
  for (const ordered_json& name : json["files"]) {
    if (name.is_string()) files.insert(name.get<std::string>());
  }
  return files;
}

// Of weights that were laid out in the folder, and what a killed program left of
// them.
bool is_prepacked(const fs::path& name) {
  const std::string first = name.begin()->string();
  const std::string file(kPrepackedFile);
  return first == file || first.starts_with(file + ".partial-") ||
         first == "." + file + ".llmpress-lock";
}

void check_safetensors(const fs::path& file);

void check_folder(const fs::path& folder) {
  if (fs::is_empty(folder)) return;
  const std::set<std::string> files = listed_files(folder);
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    const fs::file_status status = entry.symlink_status();
    if (is_prepacked(name)) {
      if (name == kPrepackedFile) check_safetensors(entry.path());
      continue;
    }
    const bool ours = fs::is_directory(status)
                          ? leads_to_any(name, files)
                          : fs::is_regular_file(status) && files.contains(name);
    if (!ours)
      refuse(folder, "holds '" + name + "', which llmpress did not write");
  }
}

// Inside a handler: what could not be looked at is told as it is; what is damaged
// is not what we wrote.
void keep_unless_damaged(const Error& error) {
  if (error.code() == ErrorCode::kIo) throw;
}

void check_hdf5(const fs::path& file) {
  (void)open_regular_file(file);  // that it may not be read is another matter
  if (is_hdf5_file(file)) {
    try {
      if (open_hdf5_tensors(file)->metadata().contains(kHdf5FormatAttribute)) {
        return;
      }
    } catch (const Error& error) {
      keep_unless_damaged(error);
    }
  }
  refuse(file, "exists and is not an HDF5 file of llmpress");
}

void check_gguf(const fs::path& file) {
  (void)open_regular_file(file);  // that it may not be read is another matter
  try {
    const auto version = GgufFile::open(file).metadata().find(kGgufVersionKey);
    if (version != nullptr) return;
  } catch (const Error& error) {
    keep_unless_damaged(error);
  }
  refuse(file, "exists and is not a GGUF file of llmpress");
}

void check_safetensors(const fs::path& file) {
  try {
    if (fs::file_size(file) == 0 ||
        open_tensors(file)->metadata().contains(std::string(kVersionKey))) {
      return;
    }
  } catch (const Error& error) {
    keep_unless_damaged(error);
  }
  refuse(file, "exists and is not a safetensors file of llmpress");
}

void check_json(const fs::path& file) {
  if (fs::file_size(file) != 0 && read_marked(file).is_null()) {
    refuse(file, "exists and is not JSON that llmpress wrote");
  }
}

void check_report(const fs::path& folder) {
  if (!read_marked(folder / kReportFiles[0]).is_null()) return;
  for (const std::string_view name : kReportFiles) {
    const fs::path file = folder / name;
    if (fs::exists(fs::symlink_status(file))) {
      refuse(file, "exists beside no report.json that llmpress wrote");
    }
  }
}

void check_resume(const fs::path& folder) {
  if (fs::is_empty(folder)) return;
  std::error_code ignored;
  const fs::path mark = folder / kResumeFile;
  const bool begun = fs::exists(mark, ignored);
  if (begun && !read_file(mark).starts_with(kResumeMark)) {
    refuse(folder, "exists and is not what an unfinished run left");
  }
  constexpr std::string_view kFolders[] = {"block-",    "linears-",  "reduced-",
                                           "trained-",  "rounded",   "copied",
                                           "converted", "recovered-"};
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool ours =
        begun && (name == kResumeFile ||
                  std::ranges::any_of(kFolders, [&](std::string_view folders) {
                    return name.starts_with(folders);
                  }));
    if (ours || name.starts_with(std::string(kResumeFile) + ".partial-")) {
      continue;
    }
    refuse(folder, "holds '" + name + "', which no unfinished run left");
  }
}

void check_exists(const fs::path& path, OutputKind kind) {
  const bool folder = fs::is_directory(path);
  const auto want = [&](bool right, const char* what) {
    if (!right) refuse(path, what);
  };
  switch (kind) {
    case OutputKind::kFolder:
      want(folder, "is a file, but this format writes a folder");
      return check_folder(path);
    case OutputKind::kHdf5File:
      want(!folder, "is a folder, but this format writes a file");
      return check_hdf5(path);
    case OutputKind::kGgufFile:
      want(!folder, "is a folder, but this format writes a file");
      return check_gguf(path);
    case OutputKind::kSafetensors:
      want(!folder, "is a folder, wanted a file");
      if (fs::is_regular_file(path)) check_safetensors(path);
      return;
    case OutputKind::kJsonFile:
      want(!folder, "is a folder, wanted a file");
      // A device or a pipe is written to, not replaced.
      if (fs::is_regular_file(path)) check_json(path);
      return;
    case OutputKind::kImatrix:
      want(!folder, "is a folder, wanted a file");
      want(is_our_imatrix(path), "exists and is no imatrix of llmpress");
      return;
    case OutputKind::kReport:
      want(folder, "is a file, wanted a folder for the report");
      return check_report(path);
    case OutputKind::kResume:
      want(folder, "is in the way of the finished blocks of this run");
      return check_resume(path);
  }
}

}  // namespace

void check_replaceable(const fs::path& path, OutputKind kind) {
  try {
    if (fs::exists(path)) check_exists(path, kind);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorCode::kIo, "{}: cannot be looked into: {}", path,
         e.code().message());
  }
}

std::string marked_json(const std::string& json,
                        const std::set<std::string>& files) {
  ordered_json marked{{kVersionKey, LLMPRESS_VERSION}};
  if (!json.empty()) marked.update(ordered_json::parse(json));
  if (!files.empty()) marked["files"] = files;
  return marked.dump(2);
}

}  // namespace llmpress

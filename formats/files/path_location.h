// Where a path leads, as the file system sees it: two names of one file or
// folder (links, "model/.", a second mount) are one place. A file is known by
// its device and inode; what is not there yet by the nearest folder that is,
// and the names below it.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace llmpress {

struct FileId {
  std::uint64_t device = 0, inode = 0;
  auto operator<=>(const FileId&) const = default;
};

// Links followed; empty if there is nothing.
std::optional<FileId> file_id(const std::filesystem::path& path);

// The file or folder that is made or replaced by writing to `path`: absolute,
// every link followed (one that leads nowhere, too), no slash at the end.
std::filesystem::path resolve_path(const std::filesystem::path& path);

class PathLocation {
 public:
  explicit PathLocation(const std::filesystem::path& path);
  const std::filesystem::path& path() const { return path_; }
  bool is(const PathLocation& other) const;
  // Is `other`, or is or will be somewhere below it.
  bool is_or_lies_in(const PathLocation& other) const;

 private:
  std::filesystem::path path_;                    // as resolve_path() gives it
  std::vector<std::filesystem::path> missing_{};  // names that are not there
  std::vector<FileId> ids_{};  // of the last that is there, then its parents
};

}  // namespace llmpress

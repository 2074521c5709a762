#include "formats/files/path_location.h"

#include <sys/stat.h>

#include <algorithm>
#include <span>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxLinks = 40;  // as the kernel has it

fs::path follow(const fs::path& path, int links) {
  if (links > kMaxLinks) {
    fail(ErrorCode::kIo, "{}: links lead in a circle", path);
  }
  std::error_code error;
  fs::path whole = fs::canonical(path, error);
  if (!error) return whole;
  if (!path.has_filename()) return follow(path.parent_path(), links);
  const fs::path name = path.filename();
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    const fs::path target = fs::read_symlink(path, error);
    if (!error) return follow(path.parent_path() / target, links + 1);
  }
  const fs::path parent = follow(path.parent_path(), links);
  if (name == ".") return parent;
  return name == ".." ? parent.parent_path() : parent / name;
}

}  // namespace

std::optional<FileId> file_id(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId{static_cast<std::uint64_t>(status.st_dev),
                static_cast<std::uint64_t>(status.st_ino)};
}

fs::path resolve_path(const fs::path& path) {
  return follow(fs::absolute(path), 0);
}

PathLocation::PathLocation(const fs::path& path) : path_(resolve_path(path)) {
  for (fs::path at = path_;; at = at.parent_path()) {
    if (const auto id = file_id(at)) {
      ids_.push_back(*id);
    } else {
      missing_.push_back(at.filename());
    }
    if (at == at.parent_path()) break;
  }
  std::ranges::reverse(missing_);
}

bool PathLocation::is(const PathLocation& other) const {
  return is_or_lies_in(other) && other.is_or_lies_in(*this);
}

bool PathLocation::is_or_lies_in(const PathLocation& other) const {
  if (other.missing_.empty()) {
    return std::ranges::find(ids_, other.ids_.front()) != ids_.end();
  }
  return ids_.front() == other.ids_.front() &&
         missing_.size() >= other.missing_.size() &&
         std::ranges::equal(other.missing_,
                            std::span(missing_).first(other.missing_.size()));
}

}  // namespace llmpress

#include "formats/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>

#include "compress/core/error.h"
#include "formats/artifact_writer.h"
#include "formats/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

constexpr std::time_t kAbandonedSeconds = 60;

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw Error(ErrorCode::kIo, path.string() + ": " + what);
}

fs::path folder_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// "out/" and "out" are the same output.
fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

fs::path beside(const fs::path& path, const std::string& suffix) {
  fs::path other = without_slash(path);
  other += suffix;
  return other;
}

// Swaps two names at once; false where the file system cannot.
bool exchange(const fs::path& a, const fs::path& b) {
#ifdef RENAME_EXCHANGE
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(),
                     RENAME_EXCHANGE) == 0;
#else
  return false;
#endif
}

void replace_in_two_steps(const fs::path& from, const fs::path& target) {
  const fs::path old = beside(target, ".old-" + std::to_string(::getpid()));
  std::error_code error, ignored;
  fs::rename(target, old, error);
  if (!error) {
    fs::rename(from, target, error);
    if (error) fs::rename(old, target, ignored);
  }
  if (error) fail(target, "cannot rename into place: " + error.message());
  sync_directory(folder_of(target));
  fs::remove_all(old, ignored);
}

// Removes what a killed run of the same target left: folders whose owner holds
// no lock any more, and that are old enough for it to have taken one.
void remove_abandoned(const fs::path& target) {
  const std::string stem = target.filename().string() + ".partial-";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_of(target), ignored)) {
    if (!entry.path().filename().string().starts_with(stem) ||
        !entry.is_directory(ignored)) {
      continue;
    }
    struct stat status {};
    const int fd =
        ::open(entry.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) continue;
    const bool old = ::fstat(fd, &status) == 0 &&
                     std::time(nullptr) - status.st_mtime > kAbandonedSeconds;
    if (old && ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
      fs::remove_all(entry.path(), ignored);
    }
    ::close(fd);
  }
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) fail(to, "cannot rename into place: " + error.message());
}

}  // namespace

OutputFile::OutputFile(const fs::path& path)
    : path_(path),
      fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                 0666)) {
  if (fd_ < 0)
    fail(path_, std::string("cannot create: ") + std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  return *this;
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(),
                              std::min(bytes.size(), std::size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(path_, std::string("cannot write: ") + std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::close() {
  const int fd = std::exchange(fd_, -1);
  const bool synced = ::fsync(fd) == 0;
  const int reason = errno;
  if (::close(fd) != 0 || !synced) {
    fail(path_, std::string("cannot flush: ") +
                    std::strerror(synced ? errno : reason));
  }
}

PartialDirectory::PartialDirectory(const fs::path& target) {
  const fs::path parent = folder_of(without_slash(target));
  std::error_code error;
  fs::create_directories(parent, error);
  remove_abandoned(without_slash(target));
  // The process id keeps two runs apart, the number two writers of one run.
  const std::string stem = ".partial-" + std::to_string(::getpid()) + "-";
  for (int number = 0; !error && path_.empty(); ++number) {
    const fs::path candidate = beside(target, stem + std::to_string(number));
    if (fs::create_directory(candidate, error)) path_ = candidate;
  }
  if (error) {
    throw Error(ErrorCode::kInvalidArgument,
                target.string() + ": cannot create the folder for output: " +
                    error.message());
  }
  // Held for as long as this lives, so that others can tell it from a leftover.
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ >= 0) ::flock(lock_, LOCK_EX | LOCK_NB);
}

PartialDirectory::~PartialDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void sync_file(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  if (!synced)
    fail(path, std::string("cannot flush: ") + std::strerror(reason));
}

void sync_directory(const fs::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    fail(directory, std::string("cannot open: ") + std::strerror(errno));
  const bool synced = ::fsync(fd) == 0;
  const int reason = errno;
  ::close(fd);
  // Some file systems cannot flush a folder; their renames are as safe as they
  // get.
  if (!synced && reason != EINVAL && reason != ENOTSUP) {
    fail(directory, std::string("cannot flush: ") + std::strerror(reason));
  }
}

void replace_path(const fs::path& from, const fs::path& to) {
  const fs::path target = without_slash(to);
  std::error_code ignored;
  if (!fs::is_directory(fs::symlink_status(target, ignored))) {
    rename_or_fail(from, target);
  } else if (exchange(from, target)) {
    sync_directory(folder_of(target));
    fs::remove_all(from, ignored);
  } else {
    replace_in_two_steps(from, target);
  }
  sync_directory(folder_of(target));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  const fs::path partial =
      beside(path, ".partial-" + std::to_string(::getpid()));
  try {
    OutputFile file(partial);
    file.write(content);
    file.close();
    rename_or_fail(partial, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(partial, ignored);
    throw;
  }
  sync_directory(folder_of(path));
}

std::string read_file(const fs::path& path) {
  const TensorBytes file = map_file(path);
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

}  // namespace llmpress

#include "formats/files/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/files/mapped_file.h"
#include "formats/files/path_location.h"
#include "formats/files/system_call.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& path, const std::string& what) {
  fail(ErrorCode::kIo, "{}: {}", path, what);
}

int open_to_read(const fs::path& path, int flags = 0) {
  return retry_interrupted(
      [&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags); });
}

bool flush(int fd) {
  return retry_interrupted([fd] { return ::fsync(fd); }) == 0;
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

// The process id keeps two runs apart, the number two writers of one run.
fs::path partial_name(const fs::path& target, int number) {
  return beside(target, formatted(".partial-{}-{}", ::getpid(), number));
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
  if (error) refuse(target, "cannot rename into place: " + error.message());
  sync_directory(folder_of(target));
  fs::remove_all(old, ignored);
}

// "12-0", the end of a temporary name.
bool is_process_and_number(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto digits = [](std::string_view part) {
    return !part.empty() &&
           part.find_first_not_of("0123456789") == std::string_view::npos;
  };
  return dash != std::string_view::npos && digits(text.substr(0, dash)) &&
         digits(text.substr(dash + 1));
}

// Empty once it is gone, otherwise why it is not.
std::string remove_leftover(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (status.st_uid != ::geteuid()) {
    return path.string() + ": left by a run of another user; not touched";
  }
  const int fd = open_to_read(path, O_NOFOLLOW);
  std::error_code error;
  const bool unused = fd >= 0 && ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  if (unused) fs::remove_all(path, error);
  if (fd >= 0) ::close(fd);
  if (unused && !error) return {};
  return path.string() + ": left by another run, or in use; not touched";
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) refuse(to, "cannot rename into place: " + error.message());
}

}  // namespace

OutputFile::OutputFile(const fs::path& path)
    : path_(path), fd_(retry_interrupted([&] {
        return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                      0666);
      })) {
  if (fd_ < 0)
    refuse(path_, formatted("cannot create: {}", std::strerror(errno)));
  ::flock(fd_, LOCK_EX | LOCK_NB);  // so that it is no leftover while written
}

OutputFile OutputFile::opened(const fs::path& path, int flags) {
  OutputFile file;
  file.path_ = path;
  file.fd_ = retry_interrupted(
      [&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666); });
  if (file.fd_ < 0)
    refuse(path, formatted("cannot open: {}", std::strerror(errno)));
  return file;
}

OutputFile OutputFile::stream(const fs::path& path) {
  return opened(path, O_NOCTTY);
}

OutputFile OutputFile::reopen(const fs::path& path) {
  return opened(path, O_NOFOLLOW);
}

OutputFile OutputFile::append(const fs::path& path) {
  return opened(path, O_CREAT | O_APPEND | O_NOFOLLOW);
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
    const ssize_t n = retry_interrupted([&] {
      return ::write(fd_, bytes.data(),
                     std::min(bytes.size(), std::size_t{1} << 30));
    });
    if (n <= 0)
      refuse(path_, formatted("cannot write: {}", std::strerror(errno)));
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::write_at(std::size_t offset,
                          std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = retry_interrupted([&] {
      return ::pwrite(fd_, bytes.data(),
                      std::min(bytes.size(), std::size_t{1} << 30),
                      static_cast<off_t>(offset));
    });
    if (n <= 0)
      refuse(path_, formatted("cannot write: {}", std::strerror(errno)));
    offset += static_cast<std::size_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void OutputFile::begin_flush() {
#if defined(__linux__)
  (void)::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
}

void OutputFile::close() {
  const int fd = std::exchange(fd_, -1);
  const bool synced = flush(fd);
  const int reason = errno;
  // Interrupted, it is closed all the same.
  const bool closed = ::close(fd) == 0 || errno == EINTR;
  if (!closed || !synced) {
    refuse(path_, formatted("cannot flush: {}",
                            std::strerror(synced ? errno : reason)));
  }
}

void OutputFile::close_unflushed() {
  if (::close(std::exchange(fd_, -1)) == 0 || errno == EINTR) return;
  refuse(path_, formatted("cannot write: {}", std::strerror(errno)));
}

PartialDirectory::PartialDirectory(const fs::path& target) {
  const fs::path parent = folder_of(without_slash(target));
  std::error_code error;
  fs::create_directories(parent, error);
  for (int number = 0; !error && path_.empty(); ++number) {
    const fs::path candidate = partial_name(target, number);
    if (fs::create_directory(candidate, error)) path_ = candidate;
  }
  if (error) {
    refuse(target, "cannot create the folder for output: " + error.message());
  }
  // Held for as long as this lives, so that others can tell it from a leftover.
  lock_ = open_to_read(path_, O_DIRECTORY);
  if (lock_ >= 0) ::flock(lock_, LOCK_EX | LOCK_NB);
}

PartialDirectory::~PartialDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void sync_file(const fs::path& path) {
  const int fd = open_to_read(path);
  const bool synced = fd >= 0 && flush(fd);
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  if (!synced)
    refuse(path, formatted("cannot flush: {}", std::strerror(reason)));
}

void sync_directory(const fs::path& directory) {
  const int fd = open_to_read(directory, O_DIRECTORY);
  if (fd < 0)
    refuse(directory, formatted("cannot open: {}", std::strerror(errno)));
  const bool synced = flush(fd);
  const int reason = errno;
  ::close(fd);
  // Some file systems cannot flush a folder; their renames are as safe as they
  // get.
  if (!synced && reason != EINVAL && reason != ENOTSUP) {
    refuse(directory, formatted("cannot flush: {}", std::strerror(reason)));
  }
}

void rename_unflushed(const fs::path& from, const fs::path& to) {
  rename_or_fail(from, without_slash(to));
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

void write_file_atomically(const fs::path& named, std::string_view content) {
  // A link is followed, so that it is its target that is replaced.
  const fs::path path = resolve_path(named);
  std::error_code ignored;
  const fs::file_type type = fs::status(path, ignored).type();
  if (type == fs::file_type::character || type == fs::file_type::fifo) {
    OutputFile stream = OutputFile::stream(path);
    return stream.write(content);
  }
  int number = 0;
  while (fs::exists(fs::symlink_status(partial_name(path, number)))) ++number;
  const fs::path partial = partial_name(path, number);
  OutputFile file(partial);
  try {
    file.write(content);
    file.close();
    rename_or_fail(partial, path);
  } catch (...) {
    fs::remove(partial, ignored);
    throw;
  }
  sync_directory(folder_of(path));
}

std::vector<std::string> remove_leftovers(const fs::path& target) {
  const std::string partial = target.filename().string() + ".partial-";
  const std::string old = target.filename().string() + ".old-";
  std::vector<std::string> notes;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_of(target), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(partial) &&
        is_process_and_number(std::string_view(name).substr(partial.size()))) {
      std::string note = remove_leftover(entry.path());
      if (!note.empty()) notes.push_back(std::move(note));
    } else if (name.starts_with(old)) {
      notes.push_back(entry.path().string() +
                      ": perhaps an earlier output that a killed run moved "
                      "out of its way; not touched");
    }
  }
  std::ranges::sort(notes);
  return notes;
}

std::string read_file(const fs::path& path) {
  const TensorBytes file = map_file(path);
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

}  // namespace llmpress

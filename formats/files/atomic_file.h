// Files that appear whole or not at all: written under another name in the same
// folder, flushed to the disk, then renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmpress {

// A file being written. Throws Error(kIo) with the path and the reason.
class OutputFile {
 public:
  OutputFile() = default;
  // A new file: one that is there is never written into.
  explicit OutputFile(const std::filesystem::path& path);
  // A file of ours that is there, to write_at() into.
  static OutputFile reopen(const std::filesystem::path& path);
  // Each write() goes to the end of the file, which is made if it is not there.
  static OutputFile append(const std::filesystem::path& path);
  // A device or a pipe that is there.
  static OutputFile stream(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Wherever write() is; from many threads at once where parts do not overlap.
  void write_at(std::size_t offset, std::span<const std::byte> bytes);
  // What was written so far begins to go to the disk. A hint.
  void begin_flush();
  // Flushes to the disk and closes.
  void close();
  // Closes a file that goes before anybody relies on it, which need not reach
  // the disk.
  void close_unflushed();
  const std::filesystem::path& path() const { return path_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  static OutputFile opened(const std::filesystem::path& path, int flags);
  std::filesystem::path path_{};
  int fd_ = -1;
};

// A new empty folder "<target>.partial-<pid>-<n>" beside `target`, removed with
// all it holds unless renamed away.
class PartialDirectory {
 public:
  explicit PartialDirectory(const std::filesystem::path& target);
  ~PartialDirectory();
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_{};
  int lock_ = -1;
};

// What killed runs left beside `target`, whose OutputLock the caller holds:
// what is this user's and not in use is removed, the rest is named in what
// returns.
std::vector<std::string> remove_leftovers(const std::filesystem::path& target);

// Flushes a file that something else wrote to the disk.
void sync_file(const std::filesystem::path& path);

// Makes renames and new files in a folder last through a power cut.
void sync_directory(const std::filesystem::path& directory);

// Renames `from` to `to`. A folder in the way changes places with `from` in one
// step and is then removed; where the file system cannot do that, it is moved
// to
// "<to>.old-<pid>" first.
void replace_path(const std::filesystem::path& from,
                  const std::filesystem::path& to);
// To where no folder is; a power cut may undo it.
void rename_unflushed(const std::filesystem::path& from,
                      const std::filesystem::path& to);

}  // namespace llmpress

// A whole file as bytes, mapped read-only: pages come in as they are touched,
// so a checkpoint larger than memory can be read.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>

#include "formats/containers/tensor_io.h"

namespace llmpress {

// Whether anything is there. Throws Error(kIo) with the path where that cannot
// be told, as in a folder that may not be searched.
bool path_exists(const std::filesystem::path& path);

// An open file, closed at the end.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor();
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Never waits, as opening a pipe would. Throws Error(kIo) with the path and the
// reason; a directory or a device is refused.
FileDescriptor open_regular_file(const std::filesystem::path& path);
TensorBytes map_file(const FileDescriptor& file,
                     const std::filesystem::path& path);

// Both at once. Throws Error(kIo) with the path and the reason; a directory or
// a device is refused.
TensorBytes map_file(const std::filesystem::path& path);

// Octets [begin, begin + size) of a mapped file. With the last copy of the
// result its pages leave the process, so that reading a file from end to end
// takes no more memory than its parts; they stay in the system's cache and
// come back if they are touched again.
TensorBytes mapped_part(const TensorBytes& file, std::size_t begin,
                        std::size_t size);

// Calls `use` with one part of a mapped file after the other, of 16 MiB at most.
void for_parts(const TensorBytes& file,
               const std::function<void(std::span<const std::byte>)>& use);

}  // namespace llmpress

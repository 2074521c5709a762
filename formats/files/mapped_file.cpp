#include "formats/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "compress/core/formatted.h"
#include "formats/files/system_call.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, const char* why) {
  fail(ErrorCode::kIo, "{}: cannot read: {}", path, why);
}

std::size_t size_of(int fd, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) refuse(path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) refuse(path, "is a folder, wanted a file");
  if (!S_ISREG(status.st_mode)) refuse(path, "not a regular file");
  return static_cast<std::size_t>(status.st_size);
}

// Those that lie in the range as a whole. A hint: failing does no harm.
void release_pages(const std::byte* begin, std::size_t size) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto from = reinterpret_cast<std::uintptr_t>(begin);
  const std::uintptr_t first = (from + page - 1) / page * page;
  const std::uintptr_t end = (from + size) / page * page;
  if (first >= end) return;
  ::madvise(const_cast<std::byte*>(begin) + (first - from), end - first,
            MADV_DONTNEED);
}

}  // namespace

bool path_exists(const std::filesystem::path& path) {
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  const bool absent = kind == std::filesystem::file_type::not_found;
  if (error && !absent) refuse(path, error.message().c_str());
  return !absent;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

FileDescriptor open_regular_file(const std::filesystem::path& path) {
  const int fd = retry_interrupted(
      [&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (fd < 0) refuse(path, std::strerror(errno));
  return FileDescriptor(fd);
}

TensorBytes map_file(const FileDescriptor& file,
                     const std::filesystem::path& path) {
  const std::size_t size = size_of(file.get(), path);
  if (size == 0) return {};
  void* const at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (at == MAP_FAILED) refuse(path, std::strerror(errno));
  std::shared_ptr<const void> owner(
      at, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return {{static_cast<const std::byte*>(at), size}, std::move(owner)};
}

TensorBytes map_file(const std::filesystem::path& path) {
  return map_file(open_regular_file(path), path);
}

TensorBytes mapped_part(const TensorBytes& file, std::size_t begin,
                        std::size_t size) {
  const auto bytes = file.bytes.subspan(begin, size);
  std::shared_ptr<const void> owner(
      bytes.data(), [size, kept = file.owner](const void* p) {
        release_pages(static_cast<const std::byte*>(p), size);
      });
  return {bytes, std::move(owner)};
}

void for_parts(const TensorBytes& file,
               const std::function<void(std::span<const std::byte>)>& use) {
  constexpr std::size_t kPart = std::size_t{1} << 24;
  for (std::size_t at = 0; at < file.bytes.size(); at += kPart) {
    const std::size_t size = std::min(kPart, file.bytes.size() - at);
    use(mapped_part(file, at, size).bytes);
  }
}

}  // namespace llmpress

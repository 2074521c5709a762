#include "formats/files/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/files/system_call.h"

namespace llmpress {
namespace {

[[noreturn]] void reject(const std::filesystem::path& folder,
                         const char* what) {
  fail(ErrorCode::kIo, "{}: scratch file: {}: {}", folder, what,
       std::strerror(errno));
}

// Without a name from the start where the file system can, else unlinked at
// once.
int open_nameless(const std::filesystem::path& folder) {
  const int fd = retry_interrupted([&] {
    return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  });
  if (fd != -1) return fd;
  std::string name = (folder / ".llmpress-scratch-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named == -1) reject(folder, "cannot be made");
  ::unlink(name.c_str());
  return named;
}

}  // namespace

ScratchFile::ScratchFile(std::filesystem::path folder)
    : folder_(std::move(folder)) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) fail(ErrorCode::kIo, "{}: {}", folder_, error.message());
  fd_ = open_nameless(folder_);
}

ScratchFile::~ScratchFile() { ::close(fd_); }

void ScratchFile::write(std::size_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto written = retry_interrupted([&] {
      return ::pwrite(fd_, bytes.data(), bytes.size(),
                      static_cast<off_t>(offset));
    });
    if (written <= 0) reject(folder_, "cannot be written");
    offset += static_cast<std::size_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void ScratchFile::read(std::size_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    errno = ENODATA;  // at the end of the file
    const auto got = retry_interrupted([&] {
      return ::pread(fd_, bytes.data(), bytes.size(),
                     static_cast<off_t>(offset));
    });
    if (got <= 0) reject(folder_, "cannot be read");
    offset += static_cast<std::size_t>(got);
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

void ScratchFile::release(std::size_t offset, std::size_t size) {
  // Space, nothing else: a file system that cannot keeps it until the end.
  (void)::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(offset), static_cast<off_t>(size));
}

}  // namespace llmpress

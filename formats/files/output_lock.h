// One writer for each output. The lock is the kernel's (flock) on the file
// ".<name>.llmpress-lock" beside the output, so that it ends with its process
// however that ends; the file says who holds it. Where the file system knows no
// locks, outputs are written without one.
#pragma once

#include <filesystem>

namespace llmpress {

class OutputLock {
 public:
  // Of a resolved path whose folder is there. Throws Error(kIo) that names the
  // holder if another run has it.
  explicit OutputLock(const std::filesystem::path& target);
  ~OutputLock();
  OutputLock(OutputLock&& other) noexcept;
  OutputLock& operator=(OutputLock&&) = delete;

 private:
  std::filesystem::path path_{};
  int fd_ = -1;
};

}  // namespace llmpress

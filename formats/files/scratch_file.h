// A file without a name for what does not fit into memory: gone with the
// process, however it ends.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace llmpress {

class ScratchFile {
 public:
  // In `folder`, which is made if it is missing. Throws Error(kIo) with the path
  // and the reason.
  explicit ScratchFile(std::filesystem::path folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  const std::filesystem::path& folder() const { return folder_; }

  // All of it, or Error(kIo) with the folder and the reason (no space left).
  void write(std::size_t offset, std::span<const std::byte> bytes);
  // Throws Error(kIo) also where nothing was written.
  void read(std::size_t offset, std::span<std::byte> bytes) const;
  // Gives the space back to the disk, where the file system can.
  void release(std::size_t offset, std::size_t size);

 private:
  std::filesystem::path folder_;
  int fd_;
};

}  // namespace llmpress

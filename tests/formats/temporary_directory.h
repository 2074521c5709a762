// A folder for one test's files, removed with it.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace llmpress {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    // In memory where there is such a folder: tests flush a thousand small
    // files.
    const std::filesystem::path shm = "/dev/shm";
    std::string name = (::access(shm.c_str(), W_OK) == 0
                            ? shm
                            : std::filesystem::temp_directory_path()) /
                       "llmpress-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error(name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_{};
};

}  // namespace llmpress

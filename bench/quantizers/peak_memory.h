// The peak of resident memory since a mark, as Linux counts it.
#pragma once

#include <cstddef>
#include <fstream>
#include <string>

namespace llmpress {

// Bytes of the line `key` of /proc/self/status ("VmHWM:", "VmRSS:"); 0 where
// there is none.
inline std::size_t process_memory(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) {
      return std::stoul(line.substr(key.size())) * 1024;
    }
  }
  return 0;
}

class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream("/proc/self/clear_refs") << "5";  // peak = resident now
    start_ = process_memory("VmRSS:");
  }
  // Bytes beyond those that were resident at the mark.
  std::size_t growth() const {
    const std::size_t peak = process_memory("VmHWM:");
    return peak > start_ ? peak - start_ : 0;
  }

 private:
  std::size_t start_ = 0;
};

}  // namespace llmpress

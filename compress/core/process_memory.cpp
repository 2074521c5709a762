#include "compress/core/process_memory.h"

#include <sys/resource.h>

namespace llmpress {

std::size_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;  // Linux: kilobytes
}

}  // namespace llmpress

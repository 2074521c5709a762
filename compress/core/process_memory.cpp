#include "compress/core/process_memory.h"

#include <malloc.h>
#include <sys/resource.h>

namespace llmpress {

std::size_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;  // Linux: kilobytes
}

void return_large_memory_at_once() {
  constexpr int kBlock = 8 << 20;
  // Where either fails, memory is what it was.
  (void)mallopt(M_MMAP_THRESHOLD, kBlock);
  (void)mallopt(M_TRIM_THRESHOLD, kBlock);
}

}  // namespace llmpress

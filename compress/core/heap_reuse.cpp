#include "compress/core/heap_reuse.h"

#include <cstdlib>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace llmpress {

#if defined(__GLIBC__)

namespace {

// glibc's largest and its own values (mallopt(3)).
constexpr int kLargestMmapThreshold = 32 << 20;
constexpr int kUsualThreshold = 128 << 10;
constexpr int kNeverTrim = 2'000'000'000;

}  // namespace

HeapReuse::HeapReuse() {
  mallopt(M_MMAP_THRESHOLD, kLargestMmapThreshold);
  mallopt(M_TRIM_THRESHOLD, kNeverTrim);
}

HeapReuse::~HeapReuse() {
  mallopt(M_MMAP_THRESHOLD, kUsualThreshold);
  mallopt(M_TRIM_THRESHOLD, kUsualThreshold);
  malloc_trim(0);
}

#else

HeapReuse::HeapReuse() = default;
HeapReuse::~HeapReuse() = default;

#endif

}  // namespace llmpress

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
constexpr int kLargeBlock = 8 << 20;

// Of both, while nothing is kept.
int threshold = kUsualThreshold;

void set_thresholds(int mmap, int trim) {
  // Where either fails, memory is what it was.
  (void)mallopt(M_MMAP_THRESHOLD, mmap);
  (void)mallopt(M_TRIM_THRESHOLD, trim);
}

}  // namespace

HeapReuse::HeapReuse() { set_thresholds(kLargestMmapThreshold, kNeverTrim); }

HeapReuse::~HeapReuse() {
  set_thresholds(threshold, threshold);
  malloc_trim(0);
}

void return_large_memory_at_once() {
  threshold = kLargeBlock;
  set_thresholds(threshold, threshold);
}

#else

HeapReuse::HeapReuse() = default;
HeapReuse::~HeapReuse() = default;
void return_large_memory_at_once() {}

#endif

}  // namespace llmpress

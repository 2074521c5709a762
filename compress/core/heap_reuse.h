// Large buffers that come and go by the thousand, taken from the heap and not
// from the system each time: a page that was just given back need not be
// cleared again.
#pragma once

namespace llmpress {

// While it lives, freed memory of up to 32 MiB a buffer stays with the process
// (glibc; elsewhere nothing happens). One at a time.
class HeapReuse {
 public:
  HeapReuse();
  ~HeapReuse();
  HeapReuse(const HeapReuse&) = delete;
  HeapReuse& operator=(const HeapReuse&) = delete;
};

}  // namespace llmpress

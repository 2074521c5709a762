// What becomes of freed memory: kept, so that large buffers that come and go by
// the thousand are not cleared by the system each time, or given back at once,
// so that a process takes no more than it uses.
#pragma once

namespace llmpress {

// While it lives, freed memory of up to 32 MiB a buffer stays with the process
// (glibc; elsewhere nothing happens); then it is as it was before. One at a
// time.
class HeapReuse {
 public:
  HeapReuse();
  ~HeapReuse();
  HeapReuse(const HeapReuse&) = delete;
  HeapReuse& operator=(const HeapReuse&) = delete;
};

// From now on, but for HeapReuse, blocks of 8 MiB and more go back to the system
// when they are freed: glibc's own threshold rises to 32 MiB with what is freed,
// and what lies between pieces stays.
void return_large_memory_at_once();

}  // namespace llmpress

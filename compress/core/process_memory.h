// What this process takes of the machine.
#pragma once

#include <cstddef>

namespace llmpress {

std::size_t peak_memory_bytes();  // resident, since it began

// From now on the allocator gives blocks of 8 MiB and more back to the system
// when they are freed, and keeps none for later: glibc's own threshold rises to
// 32 MiB with what is freed, and what lies between pieces.
void return_large_memory_at_once();

}  // namespace llmpress

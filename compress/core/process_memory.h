// What this process takes of the machine.
#pragma once

#include <cstddef>

namespace llmpress {

std::size_t peak_memory_bytes();  // resident, since it began

}  // namespace llmpress

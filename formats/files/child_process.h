// Work that may crash, loop or eat memory, done in a child process: a library
// that trusts damaged files is called where its death costs nothing.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace llmpress {

struct ChildLimits {
  std::size_t cpu_seconds = 1;
  std::size_t wall_seconds = 8;            // what waits uses no processor
  std::size_t memory_bytes = 1ull << 30;   // above what the parent has mapped
  std::size_t message_bytes = 1ull << 30;  // longest result
};

// Runs `body` in a forked child and returns what it returned. The child sees
// this process's memory as it was; what it writes to shared mappings is seen
// here. An Error that `body` throws is thrown here again. Throws
// Error(kCorruptFile, "<where>: ...") if the child dies or exceeds a limit.
// `body` may use no other thread of this process, and nothing it leaves behind
// is destroyed.
std::string run_in_child(const std::string& where, const ChildLimits& limits,
                         const std::function<std::string()>& body);

}  // namespace llmpress

// A system call that a signal interrupted is made again.
#pragma once

#include <cerrno>

namespace llmpress {

template <class F>
auto retry_interrupted(F&& call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

}  // namespace llmpress

// What the .cpp files of linear algebra need to call OpenBLAS; not for others.
#pragma once

#include <cassert>
#include <cstddef>
#include <limits>

namespace llmpress {

// BLAS counts in int.
inline int blas_int(std::size_t size) {
  assert(size <= static_cast<std::size_t>(std::numeric_limits<int>::max()));
  return static_cast<int>(size);
}

// Keeps BLAS calls of this thread to this thread: ThreadPool is who shares the
// work. Cheap after the first call in a thread.
void use_one_blas_thread();

}  // namespace llmpress

#include "compress/core/blas.h"

#include <cblas.h>

#include <mutex>

#include "compress/core/blas_core_type.h"

// Of libgomp; its header is not installed with every compiler.
extern "C" void omp_set_num_threads(int);

namespace llmpress {

void use_one_blas_thread() {
  link_blas_core_type();
  // OpenBLAS built on OpenMP asks OpenMP, whose setting belongs to the calling
  // thread; built on threads of its own it has one setting for the process.
  thread_local const bool set_here = [] {
    static std::once_flag once;
    std::call_once(once, [] { openblas_set_num_threads(1); });
    omp_set_num_threads(1);
    return true;
  }();
  static_cast<void>(set_here);
}

}  // namespace llmpress

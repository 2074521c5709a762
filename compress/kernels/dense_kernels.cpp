#include "compress/kernels/dense_kernels.h"

#include "compress/kernels/target.h"

namespace llmpress {

const DenseKernels* dense_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return &dense_kernels_avx2();
  if (isa == Isa::kAvx512) return &dense_kernels_avx512();
#endif
  (void)isa;
  return nullptr;
}

}  // namespace llmpress

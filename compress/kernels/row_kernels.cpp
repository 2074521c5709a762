#include "compress/kernels/row_kernels.h"

#include "compress/kernels/target.h"

namespace llmpress {

const RowKernels* row_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return &row_kernels_avx2();
  if (isa == Isa::kAvx512) return &row_kernels_avx512();
#endif
  (void)isa;
  return nullptr;
}

}  // namespace llmpress

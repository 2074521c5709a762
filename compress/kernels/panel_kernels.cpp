#include "compress/kernels/panel_kernels.h"

#include <stdexcept>

#include "compress/kernels/target.h"

namespace llmpress {

const PanelKernels& panel_kernels(Isa isa) {
#if LLMPRESS_X86
  if (isa == Isa::kAvx2) return panel_kernels_avx2();
  if (isa == Isa::kAvx512) return panel_kernels_avx512();
#endif
  (void)isa;
  throw std::logic_error("panel_kernels: no kernels for this instruction set");
}

}  // namespace llmpress

#include "compress/kernels/isa_choice.h"

#include "compress/core/blas_core_type.h"
#include "compress/core/formatted.h"
#include "compress/core/linalg.h"

namespace llmpress {
namespace {

// Products keep the promise only with the same kernels.
void require_avx2_products() {
  if (use_avx2_blas_kernels()) return;
  fail(
      ErrorCode::kUnsupported,
      "--isa avx2: this OpenBLAS has only kernels for {}; wants one built with "
      "DYNAMIC_ARCH",
      blas_core_name());
}

}  // namespace

Isa choose_isa(const std::string& name) {
  if (name.empty()) return best_isa();
  std::string known;
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == name) {
      if (isa == Isa::kAvx2) require_avx2_products();
      set_best_isa(isa);
      return isa;
    }
    known += (known.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  fail(ErrorCode::kInvalidArgument, "--isa {}: this machine has {}", name,
       known);
}

}  // namespace llmpress

#include "compress/core/blas_core_type.h"

#include <cstdlib>
#include <string_view>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

// Of OpenBLAS built for many processors; null in a build for one.
extern "C" {
__attribute__((weak)) void gotoblas_dynamic_init();
__attribute__((weak)) void gotoblas_dynamic_quit();
char* openblas_get_corename();
}

namespace llmpress {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)

constexpr unsigned kFma = 1u << 12, kOsxsave = 1u << 27;  // leaf 1, ecx
constexpr unsigned kAvx2 = 1u << 5;                       // leaf 7, ebx
constexpr unsigned kAvx512 = (1u << 16) | (1u << 17) |    // F, DQ
                             (1u << 30) | (1u << 31);     // BW, VL
constexpr unsigned kYmmState = 0x06, kZmmState = 0xe6;    // xcr0

unsigned state_saved_by_system() {
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// The newest kernel set that this processor and system run; nullptr: leave the
// choice to OpenBLAS.
const char* best_core() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) {
    return nullptr;
  }
  const bool fma = (c & kFma) != 0;
  const unsigned state = state_saved_by_system();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return nullptr;
  if ((b & kAvx512) == kAvx512 && (state & kZmmState) == kZmmState) {
    return "SkylakeX";
  }
  if ((b & kAvx2) != 0 && fma && (state & kYmmState) == kYmmState) {
    return "Haswell";
  }
  return nullptr;
}

// Before OpenBLAS's own constructor, whose priority is none or, in some builds,
// also 101: of equals, the object that the linker meets first goes first, and
// ours asks for the library.
// Never replaces what the user has set.
__attribute__((constructor(101))) void choose_blas_core() {
  if (const char* core = best_core()) setenv("OPENBLAS_CORETYPE", core, 0);
}

#endif

}  // namespace

void link_blas_core_type() {}

bool use_avx2_blas_kernels() {
  constexpr std::string_view kName = "Haswell";
  if (openblas_get_corename() == kName) return true;
  if (gotoblas_dynamic_init == nullptr || gotoblas_dynamic_quit == nullptr) {
    return false;
  }
  setenv("OPENBLAS_CORETYPE", kName.data(), 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  return openblas_get_corename() == kName;
}

}  // namespace llmpress

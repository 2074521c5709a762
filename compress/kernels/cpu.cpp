#include "compress/kernels/cpu.h"

namespace llmpress {
namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    return Isa::kAvx512;
  }
  // GCC 12 cannot ask for F16C; no processor has AVX2 and FMA without it.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("popcnt")) {
    return Isa::kAvx2;
  }
#endif
  return Isa::kScalar;
}

// One for the process: kernels that differ between two steps of a run would
// give bytes that neither set gives.
Isa& chosen_isa() {
  static Isa isa = detect();
  return isa;
}

}  // namespace

Isa best_isa() { return chosen_isa(); }

void set_best_isa(Isa isa) { chosen_isa() = isa; }

std::vector<Isa> available_isas() {
  switch (detect()) {
    case Isa::kScalar:
      return {Isa::kScalar};
    case Isa::kAvx2:
      return {Isa::kScalar, Isa::kAvx2};
    case Isa::kAvx512:
      return {Isa::kScalar, Isa::kAvx2, Isa::kAvx512};
  }
  return {};
}

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512-vnni";
  }
  return "";
}

}  // namespace llmpress

// Which kernels this processor runs.
#pragma once

#include <string_view>
#include <vector>

namespace llmpress {

enum class Isa {
  kScalar,  // the plain reference of every operation
  kAvx2,    // AVX2, FMA, F16C
  kAvx512,  // AVX-512 F, BW, DQ, VL and VNNI
};

// Of this machine, or what set_best_isa() said.
Isa best_isa();
std::vector<Isa> available_isas();  // of this machine, kScalar first
// From now on nothing of this process uses more; at the start of a program,
// before other threads. `isa` is one of available_isas().
void set_best_isa(Isa isa);
std::string_view isa_name(Isa isa);  // "scalar", "avx2", "avx512-vnni"

}  // namespace llmpress

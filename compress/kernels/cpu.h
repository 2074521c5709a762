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

Isa best_isa();                      // of this machine
std::vector<Isa> available_isas();   // kScalar first
std::string_view isa_name(Isa isa);  // "scalar", "avx2", "avx512-vnni"

}  // namespace llmpress

// The instruction set that a user asks for.
#pragma once

#include <string>

#include "compress/kernels/cpu.h"

namespace llmpress {

// For the whole process; empty: the best there is. "avx2" also chooses the
// products that give the same bytes on every processor that has it. Throws
// Error(kInvalidArgument) listing those of this machine, kUnsupported where the
// BLAS library cannot keep that promise.
Isa choose_isa(const std::string& name);

}  // namespace llmpress

// The value tables of 4-bit weights (QLoRA, arXiv:2305.14314, appendix E, as
// published in bitsandbytes).
#pragma once

#include <span>

#include "compress/core/packed_weight.h"

namespace llmpress {

// The 16 values by code. NF4 ascends; FP4's code is sign, 2-bit exponent, 1-bit
// mantissa.
std::span<const float> table4_values(Table4Kind kind);

// The 256 ascending values that double quantization codes `absmax` with: the
// signed dynamic map with up to 7 exponent bits (8-bit optimizers,
// arXiv:2110.02861, section 2.1) - decades 10^-6..10^0, the decade 10^(i-6)
// holding 2^i interval means of [0.1, 1] per sign, and 0 and 1.
std::span<const float> nested_absmax_map();

}  // namespace llmpress

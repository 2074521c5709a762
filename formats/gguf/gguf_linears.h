// Linears on their way into a GGUF file: as blocks where the packed type is one
// of GGUF's, code for code (docs/gguf.md has the table):
//   blocks of GGUF               as they are
//   dense                        f32, f16, bf16
//   int 4 bits, 32k a group      q4_0 (symmetric), q4_1
//   int 5 bits, 32k a group      q5_0 (symmetric), q5_1
//   int 8 bits, 32k a group      q8_0 (symmetric)
//   mxfp4                        mxfp4
// A type with minima stores m = -scale zero in f16; where that rounds, the Linear
// is refused.
#pragma once

#include <string>

#include "formats/linears/encoded_linear.h"

namespace llmpress {

// Throws Error(kUnsupported) naming the Linear and what GGUF cannot say of it.
EncodedLinear encode_gguf(const std::string& name, const LinearWeights& linear);

}  // namespace llmpress

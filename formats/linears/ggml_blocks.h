// Blocks of GGUF's types in a folder of ours, for which no other format has
// words: unfinished runs keep them like this, and so does whoever writes
// compressed-tensors or HDF5.
//
//   p.ggml_blocks U8 [out, octets of a row]
//   p.ggml_type   I32 [1]: the number of the type in GGUF files
#pragma once

#include <string>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

void encode_ggml_blocks(const std::string& name, const GgmlWeight& weight,
                        EncodedLinear& encoded);
bool is_ggml_blocks(const StoredLinear& linear);
PackedWeight read_ggml_blocks(const StoredLinear& linear);

}  // namespace llmpress

// Linears as AWQ's tools store them (AutoAWQ's "gemm"), transposed and packed
// along the outputs:
//
//   p.qweight I32 [in, out / 8]      codes of 4 bits
//   p.qzeros  I32 [groups, out / 8]  zero points as they are
//   p.scales  F16 [groups, out]
//   p.bias    F16 [out]              if there is one
//   W[o, i] = scales[i / group_size, o] (code[i, o] - zero[i / group_size, o])
//
// Nibble k of a word belongs to output 0 2 4 6 1 3 5 7 [k] of its eight.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

bool is_awq(const StoredLinear& linear);
PackedWeight read_awq(const StoredLinear& linear);

// Integers of 4 bits in groups of consecutive inputs with scales in F16; dense
// weights stay as they are. Zero points are always written: loaders want them.
// Throws Error(kUnsupported) naming the Linear and what does not fit.
EncodedLinear encode_awq(const std::string& name, const LinearWeights& linear);

// The object "quantization_config" (AutoAWQ's); empty without a packed Linear.
std::string awq_config(const std::map<std::string, DescribedLinear>& linears,
                       const std::vector<std::string>& others,
                       const ModuleNames& modules);

}  // namespace llmpress

// Linears as GPTQ's tools store them (AutoGPTQ, GPTQModel), transposed:
//
//   p.qweight I32 [in bits / 32, out]      codes, packed along the inputs
//   p.qzeros  I32 [groups, out bits / 32]  zero points, packed along the outputs
//   p.scales  F16 [groups, out]
//   p.g_idx   I32 [in]                     the group of each input
//   p.bias    F16 [out]                    if there is one
//   W[o, i] = scales[g_idx[i], o] (code[i, o] - zero[g_idx[i], o])
//
// Codes and zero points are dense streams of 2, 3, 4 or 8 bits, lowest first.
// Version 1 ("checkpoint_format": "gptq") stores zero - 1, in which a zero point
// of 0 has no place; version 2 ("gptq_v2") stores the zero point itself.
// Symmetric weights are written in version 1, others in version 2.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

bool is_gptq(const StoredLinear& linear);
// Of a symmetric weight both versions are known by their zero points, whatever
// the configuration says; a stored 2^bits - 1 of version 1 is read as 0.
PackedWeight read_gptq(const StoredLinear& linear);

// Integers of 2, 3, 4 and 8 bits with scales in F16 and sizes that 32 divides;
// dense weights stay as they are. Throws Error(kUnsupported) naming the Linear
// and what does not fit.
EncodedLinear encode_gptq(const std::string& name, const LinearWeights& linear);

// The object "quantization_config" (GPTQModel's); empty without a packed
// Linear. Linears that differ from most stand in `dynamic`.
std::string gptq_config(const std::map<std::string, DescribedLinear>& linears,
                        const std::vector<std::string>& others,
                        const ModuleNames& modules);

}  // namespace llmpress

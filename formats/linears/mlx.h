// Linears as MLX stores them (mx.quantize, mlx-lm):
//
//   p.weight U32 [out, in bits / 32]   codes from the low bits up, across words
//   p.scales [out, groups]             F16, BF16 or F32
//   p.biases [out, groups]             of the same type
//   W[o, i] = scales[o, g] code[o, i] + biases[o, g],   g = i / group_size
//
// of 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128 ("mode": "affine"); its
// 8- and 4-bit floats are in mlx_floats.h. Embeddings lie the same way.
// config.json says it in "quantization", where the path of a module that differs
// has an object of its own.
//
// A bias is -scale zero: read as integer zero points where all of them are, else
// as real ones, -bias / scale.
#pragma once

#include <map>
#include <string>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

bool is_mlx(const StoredLinear& linear);
PackedWeight read_mlx(const StoredLinear& linear);

// Affine integers and floats; dense weights stay as they are. Scales and biases
// go into F32 where the type of the scales does not hold -scale zero. Throws
// Error(kUnsupported) naming the Linear and what does not fit.
EncodedLinear encode_mlx(const std::string& name, const LinearWeights& linear);

// The object "quantization"; empty without a packed Linear.
std::string mlx_config(const std::map<std::string, DescribedLinear>& linears);

}  // namespace llmpress

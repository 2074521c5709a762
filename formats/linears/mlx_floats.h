// 8- and 4-bit floats as MLX stores them, for mlx.cpp:
//
//   mode     group  p.weight U32 [out, ...]     p.scales U8 [out, in / group]
//   mxfp4    32     E2M1, in / 8 words a row    E8M0
//   mxfp8    32     E4M3, in / 4 words a row    E8M0
//   nvfp4    16     E2M1, in / 8 words a row    E4M3
//
// the first code in the lowest bits; p.biases is not there. nvfp4 may have
// p.global_scale F32 [] (stacks of experts only): the largest magnitude, which
// multiplies by 1 / (448 * 6) of it.
#pragma once

#include <string>
#include <string_view>

#include "formats/linears/encoded_linear.h"
#include "formats/linears/linear_form.h"

namespace llmpress {

struct MlxFloatMode {
  std::string_view name;  // "mxfp8"
  int bits = 0;
  std::size_t group = 0;
};

// nullptr: none of them.
const MlxFloatMode* find_mlx_float_mode(std::string_view name);
// By its bits and group. Throws std::logic_error if there is none.
const MlxFloatMode& mlx_float_mode_of(const QuantArgs& args);

PackedWeight read_mlx_floats(const StoredLinear& linear);

// Whether a weight is of 8- or 4-bit floats at all.
bool is_mlx_float(const PackedWeight& weight);
// Throws Error(kUnsupported) naming the Linear: E5M2, scales that are no powers
// of two or go through other blocks, a global scale that does not go into E4M3.
EncodedLinear encode_mlx_floats(const std::string& name,
                                const PackedWeight& weight);

}  // namespace llmpress

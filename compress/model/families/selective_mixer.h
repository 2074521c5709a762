// Mamba's mixer as a part of block programs (arXiv:2312.00752, section 3.4).
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "compress/model/program_builder.h"

namespace llmpress {

//   x, z = split(in_proj(u));  x = conv(x)
//   dt, B, C = split(x_proj(x)), each normed where there is a norm
//   out_proj(scan(x, dt_proj(dt), B, C) * silu(z))
struct SelectiveMixer {
  std::string prefix = "mixer.";
  std::size_t hidden = 0, inner = 0, rank = 0, state = 16, kernel = 4;
  bool bias = false, convolution_bias = true;
  Activation activation = Activation::kSilu;  // of the convolution
  std::optional<NormOptions> norm{};  // dt_layernorm, b_layernorm, c_layernorm
};
ValueId selective_mixer(ProgramBuilder& program, ValueId u,
                        const SelectiveMixer& mixer);

// The rank of dt where a configuration says "auto".
std::size_t auto_rank(std::size_t hidden);

}  // namespace llmpress

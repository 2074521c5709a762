// Mamba-2's mixer as a part of block programs (arXiv:2405.21060, section 7.1).
#pragma once

#include <cstddef>
#include <limits>
#include <string>

#include "compress/model/program_builder.h"
#include "formats/config_reader.h"

namespace llmpress {

//   gate, xBC, dt = split(in_proj(x));  x, B, C = split(conv(xBC))
//   out_proj(norm(ssm(x, B, C, dt), gate))
struct MambaMixer {
  std::string prefix = "mixer.";
  std::size_t hidden = 0, inner = 0;  // inner = heads * head_dim
  std::size_t heads = 0, head_dim = 0, groups = 1, state = 0, kernel = 4;
  Activation activation = Activation::kSilu;
  bool linear_bias = false, convolution_bias = true;
  float epsilon = 1e-5f;
  std::size_t norm_groups = 0;  // 0: as many as `groups`
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();
};

ValueId mamba2_mixer(ProgramBuilder& program, ValueId x,
                     const MambaMixer& mixer);

// `time_step_limit`: [min, max].
void read_time_step_limit(const ConfigReader& config, MambaMixer& mixer);

}  // namespace llmpress

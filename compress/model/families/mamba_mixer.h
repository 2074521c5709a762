// Mamba-2's mixer as a part of block programs (arXiv:2405.21060, section 7.1).
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/program_builder.h"
#include "formats/checkpoints/config_reader.h"

namespace llmpress {

// What stands between the scan and out_proj.
enum class MambaOutput {
  kGateThenNorm,  // norm(y * silu(gate))
  kNormThenGate,  // norm(y) * silu(gate)
  kGate,          // y * silu(gate)
};

//   gate, xBC, dt = split(factors * in_proj(x));  x, B, C = split(conv(xBC))
//   out_proj(output(ssm(x, B, C, dt), gate))
struct MambaMixer {
  std::string prefix = "mixer.";
  std::size_t hidden = 0, inner = 0;  // inner = heads * head_dim
  std::size_t heads = 0, head_dim = 0, groups = 1, state = 0, kernel = 4;
  Activation activation = Activation::kSilu;
  bool in_bias = false, out_bias = false, convolution_bias = true;
  MambaOutput output = MambaOutput::kGateThenNorm;
  float epsilon = 1e-5f;         // of the norm, over each group
  std::vector<float> factors{};  // of gate, x, B, C, dt; empty: none
  float dt_min = 0, dt_max = std::numeric_limits<float>::infinity();
};

ValueId mamba2_mixer(ProgramBuilder& program, ValueId x,
                     const MambaMixer& mixer);

// ConvolutionOp with the tensors `name`.weight and .bias.
ValueId causal_convolution(ProgramBuilder& program, ValueId x,
                           const std::string& name, std::size_t kernel,
                           bool bias, std::optional<Activation> activation);

// A size; nothing where it is absent or the text "auto" stands there.
std::optional<std::size_t> size_or_auto(const ConfigReader& config,
                                        std::string_view key);

// Throws as parse_architecture() does if heads, groups and widths do not fit.
void check_mixer(const ConfigReader& config, const MambaMixer& mixer);

// `mamba_*` as Falcon-H1 and Granite 4 name them; `inner` is the width where
// mamba_d_ssm does not say it. Reads time_step_limit too.
MambaMixer read_mamba_keys(const ConfigReader& config, std::size_t hidden,
                           std::size_t inner);

// `time_step_limit`: [min, max].
void read_time_step_limit(const ConfigReader& config, MambaMixer& mixer);

}  // namespace llmpress

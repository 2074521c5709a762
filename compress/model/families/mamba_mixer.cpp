#include "compress/model/families/mamba_mixer.h"

namespace llmpress {

ValueId mamba2_mixer(ProgramBuilder& program, ValueId x,
                     const MambaMixer& mixer) {
  const std::string& at = mixer.prefix;
  const std::size_t bc = mixer.groups * mixer.state;
  const std::size_t channels = mixer.inner + 2 * bc;
  const ValueId projected =
      program.linear(x, at + "in_proj", mixer.inner + channels + mixer.heads,
                     {.bias = mixer.linear_bias, .axis = Axis::kState});
  const auto parts =
      program.split(projected, 1, {mixer.inner, channels, mixer.heads},
                    {Axis::kState, Axis::kState, Axis::kOther});
  ConvolutionOp convolution{
      .kernel = mixer.kernel,
      .weight =
          program.parameter(at + "conv1d.weight", {channels, 1, mixer.kernel}),
      .activation = mixer.activation,
      .slot = program.state_slot((mixer.kernel - 1) * channels)};
  if (mixer.convolution_bias) {
    convolution.bias = program.parameter(at + "conv1d.bias", {channels});
  }
  const auto xbc = program.split(program.apply(convolution, {parts[1]}), 1,
                                 {mixer.inner, bc, bc},
                                 {Axis::kState, Axis::kOther, Axis::kOther});
  const StateSpaceOp scan{
      .heads = mixer.heads,
      .head_dim = mixer.head_dim,
      .groups = mixer.groups,
      .state = mixer.state,
      .A_log = program.parameter(at + "A_log", {mixer.heads}),
      .D = program.parameter(at + "D", {mixer.heads}),
      .dt_bias = program.parameter(at + "dt_bias", {mixer.heads}),
      .dt_min = mixer.dt_min,
      .dt_max = mixer.dt_max,
      .slot = program.state_slot(mixer.heads * mixer.head_dim * mixer.state)};
  ValueId y = program.apply(scan, {xbc[0], xbc[1], xbc[2], parts[2]});
  y = program.gate(parts[0], y, Activation::kSilu);
  const std::size_t groups =
      mixer.norm_groups == 0 ? mixer.groups : mixer.norm_groups;
  y = program.norm(y, at + "norm",
                   {.epsilon = mixer.epsilon,
                    .unit = mixer.inner / groups,
                    .gain_of_width = true});
  return program.linear(y, at + "out_proj", mixer.hidden,
                        {.bias = mixer.linear_bias, .axis = Axis::kHidden});
}

void read_time_step_limit(const ConfigReader& config, MambaMixer& mixer) {
  const auto limit = config.numbers("time_step_limit");
  if (limit.empty()) return;
  if (limit.size() != 2) config.invalid("time_step_limit", "[min, max]");
  mixer.dt_min = static_cast<float>(limit[0]);
  mixer.dt_max = static_cast<float>(limit[1]);
}

}  // namespace llmpress

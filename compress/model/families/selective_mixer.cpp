#include "compress/model/families/selective_mixer.h"

#include <vector>

#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

ValueId normed(ProgramBuilder& program, ValueId x, const std::string& name,
               const SelectiveMixer& mixer) {
  return mixer.norm ? program.norm(x, mixer.prefix + name, *mixer.norm) : x;
}

}  // namespace

ValueId selective_mixer(ProgramBuilder& program, ValueId u,
                        const SelectiveMixer& mixer) {
  const std::string& at = mixer.prefix;
  const auto halves = program.split(
      program.linear(u, at + "in_proj", 2 * mixer.inner,
                     {.bias = mixer.bias, .axis = Axis::kState}),
      1, {mixer.inner, mixer.inner}, {Axis::kState, Axis::kState});
  const ValueId x =
      causal_convolution(program, halves[0], at + "conv1d", mixer.kernel,
                         mixer.convolution_bias, mixer.activation);
  const auto parts = program.split(
      program.linear(x, at + "x_proj", mixer.rank + 2 * mixer.state), 1,
      {mixer.rank, mixer.state, mixer.state}, std::vector<Axis>(3));
  const ValueId dt = program.linear(
      normed(program, parts[0], "dt_layernorm", mixer), at + "dt_proj",
      mixer.inner, {.bias = true, .axis = Axis::kState});
  const ValueId B = normed(program, parts[1], "b_layernorm", mixer);
  const ValueId C = normed(program, parts[2], "c_layernorm", mixer);
  const SelectiveScanOp scan{
      .channels = mixer.inner,
      .state = mixer.state,
      .A_log = program.parameter(at + "A_log", {mixer.inner, mixer.state}),
      .D = program.parameter(at + "D", {mixer.inner}),
      .slot = program.state_slot(mixer.inner * mixer.state)};
  const ValueId y = program.gate(halves[1], program.apply(scan, {x, dt, B, C}),
                                 Activation::kSilu);
  return program.linear(y, at + "out_proj", mixer.hidden,
                        {.bias = mixer.bias, .axis = Axis::kHidden});
}

std::size_t auto_rank(std::size_t hidden) {
  constexpr std::size_t kHiddenOfRank = 16;
  return (hidden + kHiddenOfRank - 1) / kHiddenOfRank;
}

}  // namespace llmpress

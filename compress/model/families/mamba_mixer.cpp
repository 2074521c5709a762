#include "compress/model/families/mamba_mixer.h"

#include "compress/core/formatted.h"
#include "compress/model/families/config_keys.h"

namespace llmpress {
namespace {

constexpr std::size_t kFactors = 5;  // of gate, x, B, C, dt

// gate | x, B, C | dt.
std::vector<ValueId> project(ProgramBuilder& program, ValueId x,
                             const MambaMixer& mixer) {
  const std::size_t bc = mixer.groups * mixer.state;
  const std::size_t channels = mixer.inner + 2 * bc;
  ValueId projected = program.linear(
      x, mixer.prefix + "in_proj", mixer.inner + channels + mixer.heads,
      {.bias = mixer.in_bias, .axis = Axis::kState});
  if (!mixer.factors.empty()) {
    const std::size_t widths[kFactors] = {mixer.inner, mixer.inner, bc, bc,
                                          mixer.heads};
    std::vector<float> factors;
    for (std::size_t i = 0; i < kFactors; ++i) {
      factors.insert(factors.end(), widths[i], mixer.factors[i]);
    }
    projected = program.apply(
        ScaleOp{.parameter = program.constant("in_proj_factors", factors)},
        {projected});
  }
  return program.split(projected, 1, {mixer.inner, channels, mixer.heads},
                       {Axis::kState, Axis::kState, Axis::kOther});
}

ValueId scan(ProgramBuilder& program, ValueId xbc, ValueId dt,
             const MambaMixer& mixer) {
  const std::string& at = mixer.prefix;
  const std::size_t bc = mixer.groups * mixer.state;
  const auto parts = program.split(xbc, 1, {mixer.inner, bc, bc},
                                   {Axis::kState, Axis::kOther, Axis::kOther});
  const StateSpaceOp op{
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
  return program.apply(op, {parts[0], parts[1], parts[2], dt});
}

ValueId gated_output(ProgramBuilder& program, ValueId y, ValueId gate,
                     const MambaMixer& mixer) {
  const NormOptions norm{.epsilon = mixer.epsilon,
                         .unit = mixer.inner / mixer.groups,
                         .gain_of_width = true};
  const std::string name = mixer.prefix + "norm";
  if (mixer.output == MambaOutput::kNormThenGate) {
    y = program.norm(y, name, norm);
  }
  y = program.gate(gate, y, Activation::kSilu);
  if (mixer.output == MambaOutput::kGateThenNorm) {
    y = program.norm(y, name, norm);
  }
  return y;
}

}  // namespace

ValueId causal_convolution(ProgramBuilder& program, ValueId x,
                           const std::string& name, std::size_t kernel,
                           bool bias, std::optional<Activation> activation) {
  const std::size_t channels = program.width(x);
  ConvolutionOp op{
      .kernel = kernel,
      .weight = program.parameter(name + ".weight", {channels, 1, kernel}),
      .activation = activation,
      .slot = program.state_slot((kernel - 1) * channels)};
  if (bias) op.bias = program.parameter(name + ".bias", {channels});
  return program.apply(op, {x});
}

ValueId mamba2_mixer(ProgramBuilder& program, ValueId x,
                     const MambaMixer& mixer) {
  const auto parts = project(program, x, mixer);
  const ValueId xbc = causal_convolution(
      program, parts[1], mixer.prefix + "conv1d", mixer.kernel,
      mixer.convolution_bias, mixer.activation);
  const ValueId y = gated_output(program, scan(program, xbc, parts[2], mixer),
                                 parts[0], mixer);
  return program.linear(y, mixer.prefix + "out_proj", mixer.hidden,
                        {.bias = mixer.out_bias, .axis = Axis::kHidden});
}

std::optional<std::size_t> size_or_auto(const ConfigReader& config,
                                        std::string_view key) {
  if (config.is_text(key)) {
    if (config.text(key) != "auto") config.invalid(key, "a size or \"auto\"");
    return std::nullopt;
  }
  return config.size(key);
}

void check_mixer(const ConfigReader& config, const MambaMixer& mixer) {
  if (mixer.inner != mixer.heads * mixer.head_dim ||
      mixer.heads % mixer.groups != 0 || mixer.inner % mixer.groups != 0) {
    fail(ErrorCode::kInvalidInput,
         "{}: a mixer {} wide does not divide into {} heads of {} in {} groups",
         config.origin(), mixer.inner, mixer.heads, mixer.head_dim,
         mixer.groups);
  }
}

MambaMixer read_mamba_keys(const ConfigReader& config, std::size_t hidden,
                           std::size_t inner) {
  config.ignore("mamba_chunk_size");
  MambaMixer mixer{
      .prefix = "mamba.",
      .hidden = hidden,
      .inner = inner,
      .heads = require_size(config, "mamba_n_heads", 128),
      .groups = require_size(config, "mamba_n_groups", 1),
      .state = require_size(config, "mamba_d_state", 256),
      .kernel = require_size(config, "mamba_d_conv", 4),
      .activation = read_activation(config, "hidden_act", "silu"),
      .in_bias = config.flag("mamba_proj_bias").value_or(false),
      .convolution_bias = config.flag("mamba_conv_bias").value_or(true)};
  mixer.head_dim =
      size_or_auto(config, "mamba_d_head").value_or(inner / mixer.heads);
  read_time_step_limit(config, mixer);
  check_mixer(config, mixer);
  return mixer;
}

void read_time_step_limit(const ConfigReader& config, MambaMixer& mixer) {
  const auto limit = config.numbers("time_step_limit");
  if (limit.empty()) return;
  if (limit.size() != 2) config.invalid("time_step_limit", "[min, max]");
  mixer.dt_min = static_cast<float>(limit[0]);
  mixer.dt_max = static_cast<float>(limit[1]);
}

}  // namespace llmpress

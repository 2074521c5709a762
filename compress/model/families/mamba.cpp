// Mamba (arXiv:2312.00752): blocks of a norm and a selective state-space mixer.
// Falcon Mamba (arXiv:2410.05355) norms what the scan's steps are made of, by
// norms without weights.
#include <optional>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"
#include "compress/model/families/selective_mixer.h"

namespace llmpress {
namespace {

// Of how weights start, of how the reference computes, and what follows from
// other keys.
void ignore_others(const ConfigReader& config) {
  for (const char* key :
       {"d_inner", "d_model", "fused_add_norm", "n_layer",
        "num_attention_heads", "num_key_value_heads", "pad_vocab_size_multiple",
        "rescale_prenorm_residual", "residual_in_fp32", "ssm_cfg",
        "time_step_floor", "time_step_init_scheme", "time_step_max",
        "time_step_min", "time_step_scale", "use_associative_scan",
        "use_falcon_mambapy", "use_mambapy"}) {
    config.ignore(key);
  }
  require_flag(config, "rms_norm", true);
}

// As in transformers, the width comes before what it would follow from (and
// Falcon Mamba's `expand` is not what its width follows from).
std::size_t read_inner(const ConfigReader& config, std::size_t hidden) {
  return require_size(config, "intermediate_size",
                      require_size(config, "expand", 2) * hidden);
}

void describe(const ConfigReader& config,
              const std::optional<NormOptions>& inner_norm,
              Architecture& arch) {
  ignore_others(config);
  arch.hidden = require_size(config, "hidden_size", 768);
  arch.keys.layers = "num_hidden_layers";
  arch.keys.free_heads = false;
  arch.layers = read_layers(config, "num_hidden_layers", 32);
  arch.vocabulary = require_size(config, "vocab_size", 50280);
  arch.max_positions = std::size_t{1} << 30;  // its state has no end
  const float epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5);
  const SelectiveMixer mixer{
      .hidden = arch.hidden,
      .inner = read_inner(config, arch.hidden),
      .rank = size_or_auto(config, "time_step_rank")
                  .value_or(auto_rank(arch.hidden)),
      .state = require_size(config, "state_size", 16),
      .kernel = require_size(config, "conv_kernel", 4),
      .bias = config.flag("use_bias").value_or(false),
      .convolution_bias = config.flag("use_conv_bias").value_or(true),
      .activation = read_activation(config, "hidden_act", "silu"),
      .norm = inner_norm};
  if (mixer.rank == 0) config.invalid("time_step_rank", "a size above 0");
  arch.embedding = "backbone.embeddings";
  arch.final_norm = "backbone.norm_f";
  arch.block_prefix = "backbone.layers.";
  arch.body = "backbone.";
  arch.final_norm_options = {.epsilon = epsilon};
  read_tied_head(config, true, arch);
  arch.hf_class.reads_weights_early = true;
  ProgramBuilder program(arch.hidden);
  const ValueId x =
      program.norm(program.stream(), "norm", arch.final_norm_options);
  set_blocks(arch, program.finish(program.add(
                       program.stream(), selective_mixer(program, x, mixer))));
}

}  // namespace

void describe_mamba(const ConfigReader& config, Architecture& arch) {
  describe(config, std::nullopt, arch);
}

void describe_falcon_mamba(const ConfigReader& config, Architecture& arch) {
  describe(config,
           NormOptions{.epsilon = read_epsilon(config, "mixer_rms_eps", 1e-6),
                       .weightless = true},
           arch);
}

}  // namespace llmpress

// Mamba-2: blocks of a norm and a state-space mixer, no attention, no MLP.
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {

void describe_mamba2(const ConfigReader& config, Architecture& arch) {
  for (const char* key :
       {"intermediate_size", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "time_step_rank", "time_step_min",
        "time_step_max", "time_step_floor", "rescale_prenorm_residual",
        "residual_in_fp32", "chunk_size", "rms_norm"}) {
    config.ignore(key);
  }
  arch.hidden = require_size(config, "hidden_size", 4096);
  arch.keys.layers = "num_hidden_layers";
  arch.keys.free_heads = false;
  arch.layers = read_layers(config, "num_hidden_layers");
  arch.vocabulary = require_size(config, "vocab_size", 32768);
  arch.max_positions = std::size_t{1} << 30;  // its state has no end
  const float epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5);
  const double expand = require_positive(config, "expand", 2.0);
  MambaMixer mixer{
      .hidden = arch.hidden,
      .inner =
          static_cast<std::size_t>(expand * static_cast<double>(arch.hidden)),
      .heads = require_size(config, "num_heads", 128),
      .head_dim = require_size(config, "head_dim", 64),
      .groups = require_size(config, "n_groups", 8),
      .state = require_size(config, "state_size", 128),
      .kernel = require_size(config, "conv_kernel", 4),
      .activation = read_activation(config, "hidden_act", "silu"),
      .in_bias = config.flag("use_bias").value_or(false),
      .convolution_bias = config.flag("use_conv_bias").value_or(true),
      .epsilon = epsilon};
  mixer.out_bias = mixer.in_bias;
  read_time_step_limit(config, mixer);
  check_mixer(config, mixer);
  arch.embedding = "backbone.embeddings";
  arch.final_norm = "backbone.norm_f";
  arch.block_prefix = "backbone.layers.";
  arch.body = "backbone.";
  arch.final_norm_options = {.epsilon = epsilon};
  arch.hf_class.reads_weights_early = true;
  read_tied_head(config, false, arch);
  ProgramBuilder program(arch.hidden);
  const ValueId x =
      program.norm(program.stream(), "norm", {.epsilon = epsilon});
  set_blocks(arch, program.finish(program.add(
                       program.stream(), mamba2_mixer(program, x, mixer))));
}

}  // namespace llmpress

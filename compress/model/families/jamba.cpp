// Jamba (arXiv:2403.19887): Mamba's mixers with norms inside, now and then
// attention without positions, each before a gated MLP or a mixture of such.
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"
#include "compress/model/families/selective_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  NormOptions norm{};
  SelectiveMixer mixer{};
  GatedMlp dense{};
  MixtureOfExperts mixture{};
};

struct LayerKind {
  bool attention = false, mixed = false;
  bool operator==(const LayerKind&) const = default;
};

BlockSpec block(const Architecture& arch, const Traits& traits,
                LayerKind kind) {
  ProgramBuilder program(arch.hidden);
  return sequential_block(
      {.before_mlp = "pre_ff_layernorm", .options = traits.norm}, program,
      [&](ValueId x) {
        return kind.attention
                   ? self_attention(program, x,
                                    {.hidden = arch.hidden,
                                     .attention = attention_of(arch)})
                   : selective_mixer(program, x, traits.mixer);
      },
      [&](ValueId x) {
        return kind.mixed ? mixture_of_experts(program, x, traits.mixture)
                          : gated_mlp(program, x, traits.dense);
      });
}

SelectiveMixer read_mixer(const ConfigReader& config, std::size_t hidden) {
  return {
      .prefix = "mamba.",
      .hidden = hidden,
      .inner = require_size(config, "mamba_expand", 2) * hidden,
      .rank = size_or_auto(config, "mamba_dt_rank").value_or(auto_rank(hidden)),
      .state = require_size(config, "mamba_d_state", 16),
      .kernel = require_size(config, "mamba_d_conv", 4),
      .bias = config.flag("mamba_proj_bias").value_or(false),
      .convolution_bias = config.flag("mamba_conv_bias").value_or(true)};
}

// The layers l with l % `what`_layer_period == `what`_layer_offset.
std::vector<bool> read_layers_of(const ConfigReader& config,
                                 const std::string& what, std::size_t period,
                                 std::size_t offset, std::size_t layers) {
  period = require_size(config, what + "_layer_period", period);
  offset = config.size(what + "_layer_offset").value_or(offset);
  if (offset >= period) {
    config.invalid(what + "_layer_offset", "less than the period");
  }
  std::vector<bool> chosen;
  for (std::size_t l = 0; l < layers; ++l) {
    chosen.push_back(l % period == offset);
  }
  return chosen;
}

std::vector<LayerKind> read_kinds(const ConfigReader& config,
                                  std::size_t layers, bool experts) {
  const auto attention = read_layers_of(config, "attn", 8, 4, layers);
  const auto mixed = read_layers_of(config, "expert", 2, 1, layers);
  std::vector<LayerKind> kinds;
  for (std::size_t l = 0; l < layers; ++l) {
    kinds.push_back({.attention = attention[l], .mixed = mixed[l] && experts});
  }
  return kinds;
}

}  // namespace

void describe_jamba(const ConfigReader& config, Architecture& arch) {
  for (const char* key : {"use_mambapy", "use_associative_scan",
                          "num_logits_to_keep", "mamba_inner_layernorms"}) {
    config.ignore(key);
  }
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = 32,
              .default_heads = 32,
              .default_vocabulary = 65536,
              .default_ffn = 14336,
              .default_max_positions = 262144,
              .default_kv_heads = 8},
             arch);
  Traits traits;
  traits.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6)};
  traits.mixer = read_mixer(config, arch.hidden);
  traits.dense = {.prefix = "feed_forward.",
                  .ffn = arch.ffn,
                  .hidden = arch.hidden,
                  .activation = read_activation(config, "hidden_act", "silu")};
  traits.mixer.activation = traits.dense.activation;
  traits.mixer.norm = traits.norm;
  const std::string at = "feed_forward.experts.";
  const bool experts = config.size("num_experts").value_or(16) > 1;
  if (experts) {
    traits.mixture = {.route = read_route(config, {"num_experts"}, 16, 2, arch),
                      .ffn = arch.ffn,
                      .hidden = arch.hidden,
                      .activation = traits.dense.activation,
                      .router = "feed_forward.router",
                      .gate = at + "%.gate_proj",
                      .up = at + "%.up_proj",
                      .down = at + "%.down_proj",
                      .gate_up_stack = at + "gate_up_proj",
                      .down_stack = at + "down_proj"};
  } else {
    config.ignore("num_experts_per_tok");
  }
  const auto kinds = read_kinds(config, arch.layers, experts);
  arch.final_norm = "model.final_layernorm";
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  set_blocks_by(arch, kinds,
                [&](LayerKind kind) { return block(arch, traits, kind); });
  if (experts) arch.ffn = 0;
}

}  // namespace llmpress

// Granite 4: Mamba-2 mixers and attention, mostly without positions, each
// before a mixture of experts beside a shared MLP, or that MLP alone; Granite's
// factors on the embedding, the scores, what is added to the stream, and the
// logits. Granite 3's mixtures of experts have attention in every layer.
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  BlockNorms norms{};
  MambaMixer mixer{};
  SelfAttention attention{};
  GatedMlp shared{};
  std::optional<MixtureOfExperts> mixture{};
};

MixtureOfExperts read_mixture(const ConfigReader& config, Architecture& arch) {
  const std::string at = "block_sparse_moe.";
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_local_experts"}, 8, 2, arch),
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .router = at + "router.layer",
      .gate = at + "experts.%.gate_proj",
      .up = at + "experts.%.up_proj",
      .down = at + "experts.%.down_proj",
      .gate_up_stack = at + "input_linear.weight",
      .down_stack = at + "output_linear.weight"};
  mixture.route.score = RouteScore::kTopKSoftmax;
  return mixture;
}

float read_factor(const ConfigReader& config, const char* key) {
  return static_cast<float>(config.number(key).value_or(1));
}

SelfAttention read_attention(const ConfigReader& config, bool turns,
                             Architecture& arch) {
  const bool bias = config.flag("attention_bias").value_or(false);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .attention = attention_of(arch)};
  attention.attention.scale = read_factor(config, "attention_multiplier");
  if (turns) {
    arch.ropes = {read_whole_rope(config, arch)};
    attention.rope = RopeOp{.rope = 0, .head_dim = arch.head_dim};
  } else {
    for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters"}) {
      config.ignore(key);
    }
  }
  return attention;
}

GatedMlp read_shared(const ConfigReader& config, const Architecture& arch,
                     std::size_t width) {
  return {.prefix = "shared_mlp.",
          .down = "output_linear",
          .gate_up = "input_linear",
          .ffn = width,
          .hidden = arch.hidden,
          .activation = read_activation(config, "hidden_act", "silu")};
}

// Norms, attention and what stands around the blocks.
Traits read_traits(const ConfigReader& config, bool turns, Architecture& arch) {
  Traits traits;
  traits.norms.options = {.epsilon =
                              read_epsilon(config, "rms_norm_eps", 1e-6)};
  traits.norms.residual_factor = read_factor(config, "residual_multiplier");
  traits.attention = read_attention(config, turns, arch);
  arch.embedding_scale = read_factor(config, "embedding_multiplier");
  arch.logit_scale =
      static_cast<float>(1 / require_positive(config, "logits_scaling", 1));
  arch.final_norm_options = traits.norms.options;
  read_tied_head(config, false, arch);
  return traits;
}

void read_mixer(const ConfigReader& config, const Architecture& arch,
                Traits& traits) {
  traits.mixer =
      read_mamba_keys(config, arch.hidden,
                      require_size(config, "mamba_expand", 2) * arch.hidden);
  traits.mixer.out_bias = traits.mixer.in_bias;
  traits.mixer.epsilon = traits.norms.options.epsilon;
}

// Whether a layer has attention.
std::vector<bool> read_attention_layers(const ConfigReader& config,
                                        std::size_t layers) {
  // Older files say "mamba" and "attention".
  std::vector<bool> attention;
  for (const std::string& type : read_layer_types(
           config, layers,
           {"linear_attention", "full_attention", "mamba", "attention"},
           std::vector<std::string>(layers, "mamba"))) {
    attention.push_back(type == "full_attention" || type == "attention");
  }
  return attention;
}

void set_kinds(const Traits& traits, const std::vector<bool>& attention_layers,
               Architecture& arch) {
  set_blocks_by(arch, attention_layers, [&](bool attention) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        traits.norms, program,
        [&](ValueId x) {
          return attention ? self_attention(program, x, traits.attention)
                           : mamba2_mixer(program, x, traits.mixer);
        },
        [&](ValueId x) {
          return traits.mixture
                     ? mixture_of_experts(program, x, *traits.mixture)
                     : gated_mlp(program, x, traits.shared);
        });
  });
}

constexpr SizeKeys kSizes{.default_hidden = 4096,
                          .default_layers = 32,
                          .default_heads = 32,
                          .default_vocabulary = 32000,
                          .default_ffn = 11008};

}  // namespace

void describe_granitemoehybrid(const ConfigReader& config, Architecture& arch) {
  config.ignore("init_method");
  config.ignore("normalization_function");
  read_sizes(config, kSizes, arch);
  Traits traits = read_traits(
      config, config.text("position_embedding_type") == "rope", arch);
  read_mixer(config, arch, traits);
  traits.shared = read_shared(
      config, arch, require_size(config, "shared_intermediate_size", 1024));
  if (config.size("num_local_experts").value_or(8) > 0) {
    traits.mixture = read_mixture(config, arch);
    traits.mixture->shared = traits.shared;
  } else {
    config.ignore("num_experts_per_tok");
  }
  arch.ffn = traits.mixture ? 0 : traits.shared.ffn;
  arch.keys.ffn = "shared_intermediate_size";
  arch.hf_class.experts = ExpertModules::kStackedOnly;
  set_kinds(traits, read_attention_layers(config, arch.layers), arch);
}

void describe_granitemoe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, kSizes, arch);
  Traits traits = read_traits(config, true, arch);
  traits.mixture = read_mixture(config, arch);
  arch.hf_class.experts = ExpertModules::kStackedOnly;
  set_kinds(traits, std::vector<bool>(arch.layers, true), arch);
  arch.ffn = 0;
}

void describe_granitemoeshared(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, kSizes, arch);
  Traits traits = read_traits(config, true, arch);
  traits.mixture = read_mixture(config, arch);
  arch.hf_class.experts = ExpertModules::kStackedOnly;
  const std::size_t shared =
      config.size("shared_intermediate_size").value_or(0);
  if (shared != 0) {
    traits.mixture->shared = read_shared(config, arch, shared);
  }
  set_kinds(traits, std::vector<bool>(arch.layers, true), arch);
  arch.ffn = 0;
}

}  // namespace llmpress

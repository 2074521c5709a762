// Nemotron-H (arXiv:2504.03624) and Nemotron 3: blocks of one part each, a
// Mamba-2 mixer, attention without positions, an MLP with a squared ReLU, or a
// mixture of such MLPs.
#include <string>
#include <utility>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  NormOptions norm{};
  MambaMixer mixer{};
  SelfAttention attention{};
  PlainMlp mlp{};
  RouteOp route{};
  std::size_t expert_ffn = 0, shared_ffn = 0;
  std::size_t latent = 0;  // the width that experts see; 0: hidden
};

// The experts' MLPs, each on its rows of a routed value.
ValueId experts_part(ProgramBuilder& program, ValueId routed,
                     const Traits& traits) {
  const std::size_t width = program.width(routed);
  const auto linear = [&](ValueId x, const std::string& name, std::size_t out,
                          Axis axis) {
    return program.expert_linear(
        x, "mixer.experts.%." + name, traits.route.experts, out,
        {.axis = axis,
         .storage = LinearStorage{.tensor = "mixer.experts." + name}});
  };
  const ValueId inner = program.activation(
      linear(routed, "up_proj", traits.expert_ffn, Axis::kFfn),
      traits.mlp.activation);
  return linear(inner, "down_proj", width,
                traits.latent == 0 ? Axis::kHidden : Axis::kOther);
}

// The weighted sum of the experts, in a space of their own if there is one,
// and a shared MLP.
ValueId mixture(ProgramBuilder& program, ValueId x, const Traits& traits) {
  const PlainMlp& mlp = traits.mlp;
  RouteOp route = traits.route;
  const ValueId logits =
      program.linear(x, "mixer.gate", route.experts,
                     {.axis = Axis::kExperts, .role = LinearRole::kRouter});
  route.bias =
      program.parameter("mixer.gate.e_score_correction_bias", {route.experts});
  PlainMlp shared = mlp;
  shared.prefix = "mixer.shared_experts.";
  shared.ffn = traits.shared_ffn;
  const ValueId common = plain_mlp(program, x, shared);
  ValueId seen = x;
  if (traits.latent != 0) {
    seen = program.linear(x, "mixer.fc1_latent_proj", traits.latent,
                          {.bias = mlp.bias});
  }
  const ValueId routes = program.apply(route, {logits}, 0, Axis::kExperts);
  const ValueId routed = program.apply(DispatchOp{}, {seen, routes});
  ValueId sum =
      program.apply(CombineOp{}, {experts_part(program, routed, traits)});
  if (traits.latent != 0) {
    sum = program.linear(sum, "mixer.fc2_latent_proj", mlp.hidden,
                         {.bias = mlp.bias, .axis = Axis::kHidden});
  }
  return program.add(sum, common);
}

BlockSpec block(const Architecture& arch, const Traits& traits, char type) {
  ProgramBuilder program(arch.hidden);
  const ValueId x = program.norm(program.stream(), "norm", traits.norm);
  const ValueId y = type == 'M'   ? mamba2_mixer(program, x, traits.mixer)
                    : type == '*' ? self_attention(program, x, traits.attention)
                    : type == 'E' ? mixture(program, x, traits)
                                  : plain_mlp(program, x, traits.mlp);
  return program.finish(program.add(program.stream(), y));
}

// One letter a block, as hybrid_override_pattern has them: M mixer,
// * attention, E experts, - MLP.
std::string read_pattern(const ConfigReader& config) {
  const std::pair<const char*, char> letters[] = {
      {"linear_attention", 'M'}, {"mamba", 'M'}, {"full_attention", '*'},
      {"attention", '*'},        {"moe", 'E'},   {"mlp", '-'}};
  std::string pattern;
  for (const char* key : {"layer_types", "layers_block_type"}) {
    const std::vector<std::string> types = config.texts(key);
    if (types.empty()) continue;
    pattern.clear();
    for (const std::string& type : types) {
      const std::size_t before = pattern.size();
      for (const auto& [name, letter] : letters) {
        if (type == name) pattern += letter;
      }
      if (pattern.size() == before) {
        config.unsupported(key,
                           "linear_attention, full_attention, moe and mlp");
      }
    }
  }
  const auto written = config.text("hybrid_override_pattern");
  if (!pattern.empty()) return pattern;
  if (!written) return "ME*-";
  if (written->empty() ||
      written->find_first_not_of("M*E-") != std::string::npos) {
    config.unsupported("hybrid_override_pattern", "letters of \"M*E-\"");
  }
  return *written;
}

// The first of two names of a key, older one first.
std::string_view either(const ConfigReader& config, std::string_view old_key,
                        std::string_view key) {
  if (!config.has(old_key)) return key;
  config.ignore(key);
  return old_key;
}

MambaMixer read_mixer(const ConfigReader& config, const Architecture& arch,
                      float epsilon) {
  MambaMixer mixer{
      .hidden = arch.hidden,
      .heads = require_size(config, "mamba_num_heads", 128),
      .head_dim = require_size(config, "mamba_head_dim", 64),
      .groups =
          require_size(config, either(config, "mamba_n_groups", "n_groups"), 8),
      .state = require_size(config, "ssm_state_size", 128),
      .kernel = require_size(config,
                             either(config, "mamba_d_conv", "conv_kernel"), 4),
      .activation = read_activation(config, "mamba_hidden_act", "silu"),
      .in_bias = config.flag("use_bias").value_or(false),
      .convolution_bias =
          config.flag(either(config, "mamba_conv_bias", "use_conv_bias"))
              .value_or(true),
      .epsilon = epsilon};
  mixer.inner = mixer.heads * mixer.head_dim;
  mixer.out_bias = mixer.in_bias;
  // Not time_step_limit, which the reference does not look at.
  mixer.dt_min = static_cast<float>(
      config.number(either(config, "mamba_dt_min", "time_step_min"))
          .value_or(0.001));
  check_mixer(config, mixer);
  return mixer;
}

void read_parts(const ConfigReader& config, const Architecture& arch,
                Traits& traits) {
  traits.norm = {.epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5)};
  traits.mixer = read_mixer(config, arch, traits.norm.epsilon);
  traits.attention = {.prefix = "mixer.",
                      .hidden = arch.hidden,
                      .attention = attention_of(arch)};
  traits.mlp = {
      .prefix = "mixer.",
      .up = "up_proj",
      .down = "down_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "mlp_hidden_act", "relu2"),
      .bias = config.flag("mlp_bias").value_or(false)};
}

void read_mixture(const ConfigReader& config, Traits& traits,
                  Architecture& arch) {
  traits.route = read_sigmoid_route(
      config, {.experts = 8, .top = 2, .groups = 1, .kept_groups = 1}, 1.0,
      arch);
  traits.expert_ffn = require_size(config, "moe_intermediate_size", 7688);
  traits.shared_ffn =
      require_size(config, "moe_shared_expert_intermediate_size", 7688);
  traits.latent = config.size("moe_latent_size").value_or(0);
}

void ignore_keys(const ConfigReader& config, bool mixture) {
  for (const char* key : {"num_hidden_layers",
                          "num_logits_to_keep",
                          "attention_bias",
                          "sliding_window",
                          "chunk_size",
                          "mamba_chunk_size",
                          "expand",
                          "mamba_expand",
                          "mamba_proj_bias",
                          "mamba_ssm_cache_dtype",
                          "mamba_dt_max",
                          "mamba_dt_limit",
                          "mamba_dt_init_floor",
                          "time_step_limit",
                          "time_step_max",
                          "time_step_floor",
                          "time_step_rank",
                          "rescale_prenorm_residual",
                          "residual_in_fp32",
                          "num_nextn_predict_layers",
                          "mtp_layers_block_type",
                          "mtp_hybrid_override_pattern",
                          "moe_shared_expert_overlap",
                          "n_shared_experts",
                          "norm_eps",
                          "attention_head_dim",
                          "rope_theta",
                          "partial_rotary_factor",
                          "rope_parameters"}) {
    config.ignore(key);
  }
  if (mixture) return;
  for (const char* key :
       {"n_routed_experts", "num_local_experts", "num_experts_per_tok",
        "n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor",
        "moe_intermediate_size", "moe_shared_expert_intermediate_size",
        "moe_latent_size"}) {
    config.ignore(key);
  }
}

}  // namespace

void describe_nemotron_h(const ConfigReader& config, Architecture& arch) {
  const std::string pattern = read_pattern(config);
  const bool mixed = pattern.find('E') != std::string::npos;
  ignore_keys(config, mixed);
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = pattern.size(),
              .default_heads = 32,
              .default_vocabulary = 131072,
              .default_ffn = 21504,
              .default_max_positions = 4096,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  arch.layers = pattern.size();
  Traits traits;
  read_parts(config, arch, traits);
  if (mixed) read_mixture(config, traits, arch);
  arch.body = "backbone.";
  arch.other_places = {{.body = "model.", .head = "lm_head"}};
  arch.embedding = "backbone.embeddings";
  arch.final_norm = "backbone.norm_f";
  arch.block_prefix = "backbone.layers.";
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  set_blocks_by(arch, std::vector<char>(pattern.begin(), pattern.end()),
                [&](char type) { return block(arch, traits, type); });
}

}  // namespace llmpress

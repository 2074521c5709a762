// DeepSeek-V2 (arXiv:2405.04434) and V3 (arXiv:2412.19437): keys and values
// come from a narrow latent, positions from a part of the key that all heads
// share; some MLPs are mixtures of many small experts beside shared ones.
// GLM-4.7-Flash is DeepSeek-V3 of other sizes.
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Of the latents' norms, whatever rms_norm_eps says.
constexpr float kLatentEpsilon = 1e-6f;

// With c = norm(latent) [rank] and r [rope_dim] from kv_a x, and head h:
//   k_h = [k_nope_h; rope(r)], v_h from kv_b c;  q_h = [q_nope_h;
//   rope(q_rope_h)]
// q = q_proj x, or q_b norm(q_a x).
struct LatentAttention {
  std::size_t hidden = 0, heads = 0;
  std::size_t query_rank = 0;  // 0: q_proj
  std::size_t rank = 0, nope_dim = 0, rope_dim = 0, value_dim = 0;
  float scale = 1;
  bool bias = false;  // of q_a, kv_a and o
  RopeStyle style = RopeStyle::kPairs;
};

struct Traits {
  NormOptions norm{};
  LatentAttention attention{};
  GatedMlp dense{};
  MixtureOfExperts mixture{};
  std::size_t dense_layers = 0;
};

std::string named(const char* name) { return std::string("self_attn.") + name; }

ValueId latent_attention(ProgramBuilder& program, ValueId x,
                         const LatentAttention& part) {
  const std::size_t heads = part.heads;
  const std::size_t key_dim = part.nope_dim + part.rope_dim;
  const NormOptions norm{.epsilon = kLatentEpsilon};
  const RopeOp rope{.rope = 0, .head_dim = part.rope_dim, .style = part.style};
  const LinearOptions narrow{.bias = part.bias};
  const LinearOptions query{.axis = Axis::kQuery};
  ValueId q =
      part.query_rank == 0
          ? program.linear(x, named("q_proj"), heads * key_dim, query)
          : program.linear(x, named("q_a_proj"), part.query_rank, narrow);
  const ValueId latent = program.linear(x, named("kv_a_proj_with_mqa"),
                                        part.rank + part.rope_dim, narrow);
  if (part.query_rank != 0) {
    q = program.norm(q, named("q_a_layernorm"), norm);
    q = program.linear(q, named("q_b_proj"), heads * key_dim, query);
  }
  const auto queries = program.split(q, heads, {part.nope_dim, part.rope_dim},
                                     {Axis::kQuery, Axis::kQuery});
  const auto pieces = program.split(latent, 1, {part.rank, part.rope_dim},
                                    {Axis::kOther, Axis::kOther});
  const ValueId c = program.norm(pieces[0], named("kv_a_layernorm"), norm);
  const ValueId expanded = program.linear(
      c, named("kv_b_proj"), heads * (part.nope_dim + part.value_dim));
  const auto keys_values =
      program.split(expanded, heads, {part.nope_dim, part.value_dim},
                    {Axis::kKey, Axis::kValue});
  q = program.join({queries[0], program.rope(queries[1], rope)}, heads,
                   {part.nope_dim, part.rope_dim}, Axis::kQuery);
  const ValueId k =
      program.join({keys_values[0], program.rope(pieces[1], rope)}, heads,
                   {part.nope_dim, part.rope_dim}, Axis::kKey);
  const ValueId mixed = program.attention(q, k, keys_values[1],
                                          {.heads = heads,
                                           .kv_heads = heads,
                                           .head_dim = key_dim,
                                           .value_dim = part.value_dim,
                                           .scale = part.scale});
  return program.linear(mixed, named("o_proj"), part.hidden,
                        {.bias = part.bias, .axis = Axis::kHidden});
}

// 1 / sqrt(head_dim), times YaRN's attention factor of `mscale_all_dim`
// squared.
float latent_scale(const ConfigReader& config, std::size_t key_dim,
                   const RopeConfig& rope) {
  double scale = 1 / std::sqrt(static_cast<double>(key_dim));
  if (rope.scaling != RopeScaling::kNone) {
    const double all_dim =
        find_rope(config)->number("mscale_all_dim").value_or(0);
    if (all_dim != 0) {
      const double mscale = yarn_attention(rope.factor, all_dim);
      scale *= mscale * mscale;
    }
  }
  return static_cast<float>(scale);
}

struct Defaults {
  std::size_t ffn = 0, expert_ffn = 0, shared_experts = 0;
  std::size_t max_positions = 0, dense_layers = 0;
  std::size_t query_rank = 1536, nope_dim = 128, value_dim = 128;
  double epsilon = 1e-6;
};

LatentAttention read_attention(const ConfigReader& config,
                               const Defaults& defaults, Architecture& arch) {
  if (arch.kv_heads != arch.heads) {
    config.unsupported("num_key_value_heads", "num_attention_heads");
  }
  LatentAttention attention{
      .hidden = arch.hidden,
      .heads = arch.heads,
      .query_rank =
          config.is_null("q_lora_rank")
              ? 0
              : require_size(config, "q_lora_rank", defaults.query_rank),
      .rank = require_size(config, "kv_lora_rank", 512),
      .nope_dim = require_size(config, "qk_nope_head_dim", defaults.nope_dim),
      .rope_dim = require_size(config, "qk_rope_head_dim", 64),
      .value_dim = require_size(config, "v_head_dim", defaults.value_dim),
      .bias = config.flag("attention_bias").value_or(false)};
  arch.ropes = {read_rope(config, arch, attention.rope_dim)};
  if (arch.ropes[0].dim != attention.rope_dim) {
    config.unsupported("partial_rotary_factor", "1");
  }
  attention.scale = latent_scale(
      config, attention.nope_dim + attention.rope_dim, arch.ropes[0]);
  // What follows from the above, whatever is written.
  config.ignore("head_dim");
  config.ignore("qk_head_dim");
  return attention;
}

Traits read_traits(const ConfigReader& config, const Defaults& defaults,
                   Architecture& arch) {
  read_sizes(config,
             {.default_ffn = defaults.ffn,
              .default_max_positions = defaults.max_positions},
             arch);
  Traits traits{
      .norm = {.epsilon =
                   read_epsilon(config, "rms_norm_eps", defaults.epsilon)},
      .attention = read_attention(config, defaults, arch),
      .dense = {.ffn = arch.ffn,
                .hidden = arch.hidden,
                .activation = read_activation(config, "hidden_act", "silu")}};
  traits.dense_layers =
      config.size("first_k_dense_replace").value_or(defaults.dense_layers);
  traits.mixture = {
      .ffn = require_size(config, "moe_intermediate_size", defaults.expert_ffn),
      .hidden = arch.hidden,
      .activation = traits.dense.activation,
      .shared = traits.dense};
  traits.mixture.shared->prefix = "mlp.shared_experts.";
  traits.mixture.shared->ffn =
      traits.mixture.ffn *
      require_size(config, "n_shared_experts", defaults.shared_experts);
  if (config.size("moe_layer_freq").value_or(1) != 1) {
    config.unsupported("moe_layer_freq", "1");
  }
  // Of training, and layers beyond num_hidden_layers that guess further tokens.
  for (const char* key : {"aux_loss_alpha", "seq_aux", "ep_size",
                          "num_nextn_predict_layers", "num_mtp_layers"}) {
    config.ignore(key);
  }
  return traits;
}

void require_text(const ConfigReader& config, std::string_view key,
                  std::string_view wanted) {
  if (config.text(key).value_or(std::string(wanted)) != wanted) {
    config.unsupported(key, std::string(wanted));
  }
}

std::vector<bool> mixed_from(std::size_t first, std::size_t layers) {
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < layers; ++l) mixed.push_back(l >= first);
  return mixed;
}

void finish(const ConfigReader& config, const Traits& traits,
            const std::vector<bool>& mixed, Architecture& arch) {
  set_blocks_by(arch, mixed, [&](bool experts) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = traits.norm}, program,
        [&](ValueId x) {
          return latent_attention(program, x, traits.attention);
        },
        [&](ValueId x) {
          return experts ? mixture_of_experts(program, x, traits.mixture)
                         : gated_mlp(program, x, traits.dense);
        });
  });
  arch.final_norm_options = traits.norm;
  arch.ffn = 0;
  arch.head_dim = 0;  // queries and values have one each
  read_tied_head(config, false, arch);
}

}  // namespace

void describe_deepseek_v2(const ConfigReader& config, Architecture& arch) {
  Traits traits = read_traits(config,
                              {.ffn = 11008,
                               .expert_ffn = 1407,
                               .shared_experts = 2,
                               .max_positions = 2048,
                               .dense_layers = 0},
                              arch);
  const bool bias = config.flag("mlp_bias").value_or(false);
  traits.dense.bias = traits.mixture.shared->bias = bias;
  RouteOp& route = traits.mixture.route;
  route = read_route(config, {"n_routed_experts", "num_experts"}, 64, 0, arch);
  require_text(config, "scoring_func", "softmax");
  // The reference leaves the weights as they are, DeepSeek's own code does not.
  require_flag(config, "norm_topk_prob", false);
  const std::string method = config.text("topk_method").value_or("greedy");
  if (method == "group_limited_greedy") {
    read_groups(config, 0, 0, GroupRank::kMax, route);
  } else if (method == "greedy") {
    config.ignore("n_group");
    config.ignore("topk_group");
  } else {
    config.unsupported("topk_method", "greedy or group_limited_greedy");
  }
  route.scale =
      static_cast<float>(config.number("routed_scaling_factor").value_or(1.0));
  finish(config, traits, mixed_from(traits.dense_layers, arch.layers), arch);
}

void describe_deepseek_v3(const ConfigReader& config, Architecture& arch) {
  Traits traits = read_traits(config,
                              {.ffn = 18432,
                               .expert_ffn = 2048,
                               .shared_experts = 1,
                               .max_positions = 4096,
                               .dense_layers = 3},
                              arch);
  traits.mixture.route = read_sigmoid_route(
      config, {.experts = 256, .top = 8, .groups = 8, .kept_groups = 4}, 2.5,
      arch);
  traits.mixture.correction_bias = "mlp.gate.e_score_correction_bias";
  require_text(config, "scoring_func", "sigmoid");
  require_text(config, "topk_method", "noaux_tc");
  if (!config.flag("rope_interleave").value_or(true)) {
    traits.attention.style = RopeStyle::kHalves;
  }
  finish(config, traits, mixed_from(traits.dense_layers, arch.layers), arch);
}

void describe_glm4_moe_lite(const ConfigReader& config, Architecture& arch) {
  Traits traits = read_traits(config,
                              {.ffn = 10240,
                               .expert_ffn = 1536,
                               .shared_experts = 1,
                               .max_positions = 202752,
                               .dense_layers = 1,
                               .query_rank = 768,
                               .nope_dim = 192,
                               .value_dim = 256,
                               .epsilon = 1e-5},
                              arch);
  traits.mixture.route =
      read_sigmoid_route(config, {.experts = 64, .top = 4}, 1.8, arch);
  traits.mixture.correction_bias = "mlp.gate.e_score_correction_bias";
  require_text(config, "scoring_func", "sigmoid");
  require_text(config, "topk_method", "noaux_tc");
  // transformers reads it as another name of this width.
  const std::size_t turning = traits.attention.rope_dim;
  if (config.size("head_dim").value_or(turning) != turning) {
    config.unsupported("head_dim", "qk_rope_head_dim");
  }
  // transformers looks at the list alone.
  if (traits.dense_layers != 1)
    config.unsupported("first_k_dense_replace", "1");
  if (!config.flag("rope_interleave").value_or(true)) {
    traits.attention.style = RopeStyle::kHalves;
  }
  finish(config, traits, read_mixed_types(config, arch.layers, 1), arch);
}

}  // namespace llmpress

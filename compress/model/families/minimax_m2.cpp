// MiniMax-M2: every layer has attention, whose queries and keys are normed over
// all heads together and turn in part, before a mixture of experts that is
// routed by sigmoid scores.
#include <string>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Older files write the width that turns.
double read_partial(const ConfigReader& config, const Architecture& arch) {
  const std::size_t turning = require_size(config, "rotary_dim", arch.head_dim);
  return static_cast<double>(turning) / static_cast<double>(arch.head_dim);
}

// Keys of the code that came with the first checkpoints.
void read_others(const ConfigReader& config) {
  for (const char* key :
       {"max_model_len", "mlp_intermediate_size", "mtp_transformer_layers",
        "num_mtp_modules", "shared_moe_mode", "use_mtp"}) {
    config.ignore(key);
  }
  for (const std::size_t type : config.sizes("attn_type_list")) {
    if (type != 1) config.unsupported("attn_type_list", "1 in all layers");
  }
  if (config.size("shared_intermediate_size").value_or(0) != 0) {
    config.unsupported("shared_intermediate_size", "0");
  }
  if (config.text("scoring_func").value_or("sigmoid") != "sigmoid") {
    config.unsupported("scoring_func", "sigmoid");
  }
  if (config.text("qk_norm_type").value_or("per_layer") != "per_layer") {
    config.unsupported("qk_norm_type", "per_layer");
  }
  require_flag(config, "use_qk_norm", true);
  require_flag(config, "use_routing_bias", true);
}

}  // namespace

void describe_minimax_m2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 3072,
              .default_layers = 62,
              .default_heads = 48,
              .default_vocabulary = 200064,
              .default_ffn = 1536,
              .default_max_positions = 196608,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  read_others(config);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6)};
  arch.ropes = {
      read_rope(config, arch, arch.head_dim,
                {.theta = 5e6, .partial = read_partial(config, arch)})};
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qk_norm = norm,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  const std::string at = "block_sparse_moe.";
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_local_experts", "num_experts"}, 256, 8,
                          arch),
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .correction_bias = at + "e_score_correction_bias",
      .router = at + "gate",
      .gate = at + "experts.%.w1",
      .up = at + "experts.%.w3",
      .down = at + "experts.%.w2"};
  mixture.route.score = RouteScore::kSigmoid;
  mixture.route.normalize = true;
  ProgramBuilder program(arch.hidden);
  set_blocks(
      arch,
      sequential_block(
          {.options = norm}, program,
          [&](ValueId x) { return self_attention(program, x, attention); },
          [&](ValueId x) { return mixture_of_experts(program, x, mixture); }));
  arch.final_norm_options = norm;
  arch.ffn = 0;
  read_tied_head(config, false, arch);
}

}  // namespace llmpress

// GLM-4.5 (arXiv:2508.06471): DeepSeek-V3's routing beside attention of grouped
// queries, whose heads turn in part.
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_glm4_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 10944,
              .default_max_positions = 131072,
              .default_kv_heads = 8},
             arch);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  arch.ropes = {
      read_rope(config, arch, arch.head_dim, {.theta = 10000, .partial = 0.5})};
  SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = config.flag("attention_bias").value_or(false),
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  if (config.flag("use_qk_norm").value_or(false)) {
    attention.qk_norm =
        NormOptions{.epsilon = norm.epsilon, .unit = arch.head_dim};
  }
  const GatedMlp dense{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  MixtureOfExperts mixture{
      .route =
          read_sigmoid_route(config, {.experts = 128, .top = 8}, 1.0, arch),
      .ffn = require_size(config, "moe_intermediate_size", 1408),
      .hidden = arch.hidden,
      .activation = dense.activation,
      .correction_bias = "mlp.gate.e_score_correction_bias",
      .shared = dense};
  mixture.shared->prefix = "mlp.shared_experts.";
  mixture.shared->ffn =
      mixture.ffn * require_size(config, "n_shared_experts", 1);
  // Layers beyond num_hidden_layers that guess further tokens.
  config.ignore("num_nextn_predict_layers");
  config.ignore("num_mtp_layers");
  const std::size_t dense_layers =
      config.size("first_k_dense_replace").value_or(1);
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < arch.layers; ++l) {
    mixed.push_back(l >= dense_layers);
  }
  set_blocks_by(arch, mixed, [&](bool experts) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = norm}, program,
        [&](ValueId x) { return self_attention(program, x, attention); },
        [&](ValueId x) {
          return experts ? mixture_of_experts(program, x, mixture)
                         : gated_mlp(program, x, dense);
        });
  });
  arch.final_norm_options = norm;
  arch.ffn = 0;
  read_tied_head(config, false, arch);
}

}  // namespace llmpress

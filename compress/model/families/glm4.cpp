// GLM-4 (0414): norms before and after attention and MLP, half of a head turned
// in neighbouring coordinates, gate and up in one Linear. GLM (1) has no norms
// after.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

void describe(const ConfigReader& config, BlockNorms norms,
              Architecture& arch) {
  read_sizes(config,
             {.default_max_positions = 131072,
              .default_head_dim = 128,
              .default_kv_heads = 2},
             arch);
  norms.options = {.epsilon = read_epsilon(config, "rms_norm_eps", 1.5625e-07)};
  arch.final_norm_options = norms.options;
  read_tied_head(config, false, arch);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.5})};
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = config.flag("attention_bias").value_or(true),
      .rope =
          RopeOp{
              .rope = 0, .head_dim = arch.head_dim, .style = RopeStyle::kPairs},
      .attention = attention_of(arch)};
  const GatedMlp mlp{
      .gate_up = "gate_up_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  set_blocks(arch, sequential_block(
                       norms, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

}  // namespace

void describe_glm(const ConfigReader& config, Architecture& arch) {
  describe(config, {}, arch);
}

void describe_glm4(const ConfigReader& config, Architecture& arch) {
  describe(config,
           {.after_attention = "post_self_attn_layernorm",
            .after_mlp = "post_mlp_layernorm"},
           arch);
}

}  // namespace llmpress

// Persimmon: layer norms, also of each head, that turns in part; q, k, v of
// each head side by side in one Linear; a plain MLP.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_persimmon(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.kv_heads = "",
              .head_dim = "",
              .default_ffn = 16384,
              .default_max_positions = 16384},
             arch);
  const NormOptions norm{
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5),
      .bias = true};
  arch.final_norm = "model.final_layernorm";
  arch.final_norm_options = norm;
  read_tied_head(config, false, arch);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.5})};
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.o = "dense",
                          .qkv = "query_key_value",
                          .qkv_groups = arch.heads,
                          .hidden = arch.hidden,
                          .qkv_bias = true,
                          .o_bias = true,
                          .q_norm = "q_layernorm",
                          .k_norm = "k_layernorm",
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  if (config.flag("qk_layernorm").value_or(true)) {
    attention.qk_norm = norm;
    attention.qk_norm->unit = arch.head_dim;
  }
  const PlainMlp mlp{
      .up = "dense_h_to_4h",
      .down = "dense_4h_to_h",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "relu2")};
  set_blocks(arch, sequential_block(
                       {.options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

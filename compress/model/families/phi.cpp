// Phi-1 to 2 (arXiv:2306.11644): attention and MLP read one norm in parallel,
// biases everywhere, part of a head turned.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_phi(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 8192}, arch);
  arch.final_norm = "model.final_layernorm";
  arch.head_bias = true;
  const NormOptions norm{
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5),
      .bias = true};
  arch.final_norm_options = norm;
  read_tied_head(config, false, arch);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.5})};
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.o = "dense",
                          .hidden = arch.hidden,
                          .qkv_bias = true,
                          .o_bias = true,
                          .q_norm = "q_layernorm",
                          .k_norm = "k_layernorm",
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  if (config.flag("qk_layernorm").value_or(false)) {
    attention.qk_norm = norm;
    attention.qk_norm->unit = arch.head_dim;
  }
  const PlainMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "gelu_new")};
  set_blocks(arch, parallel_block(
                       {.before_mlp = "", .options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

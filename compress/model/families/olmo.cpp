// OLMo (arXiv:2402.00838): layer norms without weights, queries, keys and
// values clipped where the configuration says so.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_olmo(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  const NormOptions norm{
      .kind = NormKind::kLayer, .epsilon = 1e-5f, .weightless = true};
  arch.final_norm = "";
  arch.final_norm_options = norm;
  arch.ropes = {read_whole_rope(config, arch)};
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  if (config.has("clip_qkv")) {
    attention.clip = static_cast<float>(require_positive(config, "clip_qkv"));
  }
  const GatedMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  set_blocks(arch, sequential_block(
                       {.options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

}  // namespace llmpress

// Granite 3: Llama's block with factors on the embedding, the scores, what is
// added to the stream, and the logits.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_granite(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {}, arch);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6)};
  arch.final_norm_options = norm;
  const auto factor = [&](const char* key) {
    return static_cast<float>(config.number(key).value_or(1));
  };
  arch.embedding_scale = factor("embedding_multiplier");
  arch.logit_scale =
      static_cast<float>(1 / require_positive(config, "logits_scaling", 1));
  arch.ropes = {read_whole_rope(config, arch)};
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  attention.attention.scale = factor("attention_multiplier");
  const GatedMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .bias = config.flag("mlp_bias").value_or(false)};
  set_blocks(
      arch,
      sequential_block(
          {.options = norm, .residual_factor = factor("residual_multiplier")},
          program,
          [&](ValueId x) { return self_attention(program, x, attention); },
          [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

}  // namespace llmpress

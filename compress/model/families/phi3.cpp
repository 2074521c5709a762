// Phi-3 and Phi-4 (arXiv:2404.14219): Llama's block with q, k, v in one Linear
// and gate, up in another; LongRoPE.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_phi3(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 4096}, arch);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  arch.final_norm_options = norm;
  arch.ropes = {
      read_rope(config, arch, arch.head_dim, {.original_positions = 4096})};
  const RopeScaling scaling = arch.ropes[0].scaling;
  if (scaling != RopeScaling::kNone && scaling != RopeScaling::kLongRope) {
    config.unsupported("rope_scaling", "the type default or longrope");
  }
  config.ignore("original_max_position_embeddings");
  // Settings of the code that came with the first checkpoints.
  config.ignore("full_attn_mod");
  config.ignore("interpolate_factor");
  read_tied_head(config, false, arch);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .qkv = "qkv_proj",
      .hidden = arch.hidden,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch, read_window(config, 0))};
  const GatedMlp mlp{
      .gate_up = "gate_up_proj",
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

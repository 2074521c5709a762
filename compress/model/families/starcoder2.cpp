// StarCoder 2 (arXiv:2402.19173): layer norms, biases, a plain MLP, rotary
// embedding and a window.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_starcoder2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 12288,
              .default_max_positions = 4096,
              .default_kv_heads = 2},
             arch);
  // Settings of the code that came with the first checkpoints.
  for (const char* key : {"activation_function", "mlp_type", "norm_type"}) {
    config.ignore(key);
  }
  const NormOptions norm{.kind = NormKind::kLayer,
                         .epsilon = read_epsilon(config, "norm_epsilon", 1e-5),
                         .bias = true};
  arch.final_norm_options = norm;
  read_tied_head(config, true, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  const bool bias = config.flag("use_bias").value_or(true);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = bias,
      .o_bias = bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch, read_window(config, 0))};
  const PlainMlp mlp{
      .up = "c_fc",
      .down = "c_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "gelu_pytorch_tanh"),
      .bias = bias};
  set_blocks(arch, sequential_block(
                       {.options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

// GPT-J: pairs of neighbouring coordinates turn, attention and MLP read one
// norm in parallel, the head has a bias.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_gptj(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.hidden = "n_embd",
              .ffn = "n_inner",
              .layers = "n_layer",
              .heads = "n_head",
              .kv_heads = "",
              .head_dim = "",
              .max_positions = "n_positions",
              .default_ffn_factor = 4},
             arch);
  for (const char* key : {"n_ctx", "summary_type", "summary_use_proj",
                          "summary_activation", "summary_proj_to_labels"}) {
    config.ignore(key);
  }
  require_flag(config, "rotary", true);
  require_flag(config, "scale_attn_weights", true);
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.head_bias = true;
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  read_tied_head(config, false, arch);
  const std::size_t turning = require_size(config, "rotary_dim", 64);
  if (turning > arch.head_dim || turning % 2 != 0) {
    config.invalid("rotary_dim", "an even number up to the width of a head");
  }
  arch.ropes = {{.dim = turning}};
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{.prefix = "attn.",
                                .o = "out_proj",
                                .hidden = arch.hidden,
                                .rope = RopeOp{.rope = 0,
                                               .head_dim = arch.head_dim,
                                               .style = RopeStyle::kPairs},
                                .attention = attention_of(arch)};
  const PlainMlp mlp{
      .up = "fc_in",
      .down = "fc_out",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "activation_function", "gelu_new")};
  set_blocks(arch, parallel_block(
                       {.before_attention = "ln_1",
                        .before_mlp = "",
                        .options = arch.final_norm_options},
                       program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

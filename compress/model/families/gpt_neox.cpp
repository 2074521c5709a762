// GPT-NeoX (arXiv:2204.06745), Pythia: q, k, v of each head side by side in one
// Linear, part of a head turned, attention and MLP in parallel with a norm
// each.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_gpt_neox(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.kv_heads = "", .head_dim = ""}, arch);
  arch.body = "gpt_neox.";
  arch.embedding = "gpt_neox.embed_in";
  arch.final_norm = "gpt_neox.final_layer_norm";
  arch.head = "embed_out";
  arch.block_prefix = "gpt_neox.layers.";
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5),
      .bias = true};
  read_tied_head(config, false, arch);
  arch.ropes = {read_rope_object(
      config, find_rope(config), arch, arch.head_dim,
      {.theta = require_positive(config, "rotary_emb_base", 10000),
       .partial = require_positive(config, "rotary_pct", 0.25)})};
  const bool bias = config.flag("attention_bias").value_or(true);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .prefix = "attention.",
      .o = "dense",
      .qkv = "query_key_value",
      .qkv_groups = arch.heads,
      .hidden = arch.hidden,
      .qkv_bias = bias,
      .o_bias = bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  const PlainMlp mlp{
      .up = "dense_h_to_4h",
      .down = "dense_4h_to_h",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "gelu")};
  const auto make = config.flag("use_parallel_residual").value_or(true)
                        ? parallel_block
                        : sequential_block;
  set_blocks(arch, make(
                       {.options = arch.final_norm_options}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

// BLOOM (arXiv:2211.05100): ALiBi instead of positions, a norm after the
// embedding, q, k, v of each head side by side in one Linear.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// The parts are added to what the norms give (a setting of the smallest).
BlockSpec residual_after_norm(const BlockNorms& norms, ProgramBuilder& program,
                              const BlockPart& attention,
                              const BlockPart& mlp) {
  const ValueId x =
      program.norm(program.stream(), norms.before_attention, norms.options);
  const ValueId h = program.norm(program.add(x, attention(x)), norms.before_mlp,
                                 norms.options);
  return program.finish(program.add(h, mlp(h)));
}

void ignore_others(const ConfigReader& config) {
  for (const char* key :
       {"attention_softmax_in_fp32", "bias_dropout_fusion", "n_inner",
        "masked_softmax_fusion", "offset_alibi", "seq_length", "skip_bias_add",
        "skip_bias_add_qkv", "slow_but_exact", "max_position_embeddings"}) {
    config.ignore(key);
  }
}

}  // namespace

void describe_bloom(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.hidden = config.has("n_embed") ? "n_embed" : "hidden_size",
              .ffn = "",
              .layers = config.has("num_hidden_layers") ? "num_hidden_layers"
                                                        : "n_layer",
              .heads = config.has("num_attention_heads") ? "num_attention_heads"
                                                         : "n_head",
              .kv_heads = "",
              .head_dim = "",
              .default_ffn_factor = 4},
             arch);
  config.ignore("hidden_size");
  ignore_others(config);
  arch.body = "transformer.";
  arch.embedding = "transformer.word_embeddings";
  arch.embedding_norm = "transformer.word_embeddings_layernorm";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.other_places = {{.body = "", .head = "lm_head"}};
  const NormOptions norm{
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  arch.embedding_norm_options = arch.final_norm_options = norm;
  read_tied_head(config, true, arch);
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.prefix = "self_attention.",
                          .o = "dense",
                          .qkv = "query_key_value",
                          .qkv_groups = arch.heads,
                          .hidden = arch.hidden,
                          .qkv_bias = true,
                          .o_bias = true,
                          .attention = attention_of(arch)};
  attention.attention.slopes =
      program.constant("alibi_slopes", alibi_slopes(arch.heads));
  const PlainMlp mlp{.up = "dense_h_to_4h",
                     .down = "dense_4h_to_h",
                     .ffn = arch.ffn,
                     .hidden = arch.hidden};
  const auto make =
      config.flag("apply_residual_connection_post_layernorm").value_or(false)
          ? residual_after_norm
          : sequential_block;
  set_blocks(arch, make(
                       {.options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

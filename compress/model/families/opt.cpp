// OPT (arXiv:2205.01068): learned positions from row 2 on, ReLU; the smallest
// but one normalizes after each part and has a narrower embedding.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// norm(x + attention(x)), then norm(h + mlp(h)).
BlockSpec norm_after_sum(const BlockNorms& norms, ProgramBuilder& program,
                         const BlockPart& attention, const BlockPart& mlp) {
  const ValueId x = program.stream();
  const ValueId h = program.norm(program.add(x, attention(x)),
                                 norms.before_attention, norms.options);
  return program.finish(
      program.norm(program.add(h, mlp(h)), norms.before_mlp, norms.options));
}

void name_ends(const ConfigReader& config, bool norm_before,
               Architecture& arch) {
  const std::string decoder = "model.decoder.";
  arch.body = decoder;
  arch.embedding = decoder + "embed_tokens";
  arch.position_embedding = decoder + "embed_positions";
  arch.position_offset = 2;
  arch.block_prefix = decoder + "layers.";
  arch.other_places = {{.body = "decoder.", .head = "lm_head"}};
  const bool removed = config.flag("_remove_final_layer_norm").value_or(false);
  arch.final_norm = norm_before && !removed ? decoder + "final_layer_norm" : "";
  const std::size_t width =
      require_size(config, "word_embed_proj_dim", arch.hidden);
  if (width == arch.hidden) return;
  arch.embedding_width = width;
  arch.embedding_projection = decoder + "project_in";
  arch.head_projection = decoder + "project_out";
}

}  // namespace

void describe_opt(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.ffn = "ffn_dim", .kv_heads = "", .head_dim = ""}, arch);
  config.ignore("init_std");
  config.ignore("layerdrop");
  require_flag(config, "layer_norm_elementwise_affine", true);
  const bool before = config.flag("do_layer_norm_before").value_or(true);
  name_ends(config, before, arch);
  arch.final_norm_options = {
      .kind = NormKind::kLayer, .epsilon = 1e-5f, .bias = true};
  read_tied_head(config, true, arch);
  const bool bias = config.flag("enable_bias").value_or(true);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{.o = "out_proj",
                                .hidden = arch.hidden,
                                .qkv_bias = bias,
                                .o_bias = bias,
                                .attention = attention_of(arch)};
  const PlainMlp mlp{
      .prefix = "",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "activation_function", "relu"),
      .bias = bias};
  const auto make = before ? sequential_block : norm_after_sum;
  set_blocks(arch, make(
                       {.before_attention = "self_attn_layer_norm",
                        .before_mlp = "final_layer_norm",
                        .options = arch.final_norm_options},
                       program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

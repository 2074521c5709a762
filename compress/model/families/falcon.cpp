// Falcon (arXiv:2311.16867): q, k, v in one Linear, with one key/value head,
// one a head, or (the newer ones) groups of queries beside their key and value;
// attention and MLP mostly in parallel.
#include <string>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct Shape {
  bool grouped = false, parallel = true, norm_for_each = false;
  std::size_t qkv_groups = 1;
};

// Also sets the number of key/value heads.
Shape read_shape(const ConfigReader& config, Architecture& arch) {
  Shape shape{
      .grouped = config.flag("new_decoder_architecture").value_or(false),
      .parallel = config.flag("parallel_attn").value_or(true)};
  const bool multi_query = config.flag("multi_query").value_or(true);
  const std::size_t kv_heads = require_size(config, "num_kv_heads", arch.heads);
  if (shape.grouped) {
    if (!shape.parallel) config.unsupported("parallel_attn", "true");
    arch.kv_heads = shape.qkv_groups = kv_heads;
  } else if (multi_query) {
    arch.kv_heads = 1;
  } else {
    if (kv_heads != arch.heads) {
      config.unsupported("num_kv_heads", "num_attention_heads");
    }
    shape.qkv_groups = arch.heads;
  }
  if (arch.heads % arch.kv_heads != 0) {
    config.invalid("num_kv_heads", "a divisor of num_attention_heads");
  }
  const std::size_t norms =
      require_size(config, "num_ln_in_parallel_attn", shape.grouped ? 2 : 1);
  shape.norm_for_each = norms == 2;
  if (norms > 2 || (norms == 2 && !shape.grouped && shape.parallel)) {
    config.unsupported("num_ln_in_parallel_attn",
                       "1, or 2 with "
                       "new_decoder_architecture");
  }
  return shape;
}

BlockNorms block_norms(const Shape& shape, const NormOptions& options) {
  if (!shape.parallel) return {.options = options};
  if (!shape.norm_for_each) return {.before_mlp = "", .options = options};
  return {.before_attention = "ln_attn",
          .before_mlp = "ln_mlp",
          .options = options};
}

}  // namespace

void describe_falcon(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.hidden = config.has("n_embed") ? "n_embed" : "hidden_size",
              .ffn = "ffn_hidden_size",
              .kv_heads = "",
              .head_dim = "",
              .default_ffn_factor = 4},
             arch);
  config.ignore("hidden_size");
  // The reference rounds ALiBi's products to bfloat16, position by position.
  require_flag(config, "alibi", false);
  require_flag(config, "apply_residual_connection_post_layernorm", false);
  arch.body = "transformer.";
  arch.embedding = "transformer.word_embeddings";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.other_places = {{.body = "", .head = "lm_head"}};
  const NormOptions norm{
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  arch.final_norm_options = norm;
  arch.hf_class.reads_weights_early = true;
  read_tied_head(config, true, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  const Shape shape = read_shape(config, arch);
  const bool bias = config.flag("bias").value_or(false);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .prefix = "self_attention.",
      .o = "dense",
      .qkv = "query_key_value",
      .qkv_groups = shape.qkv_groups,
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
      .activation = read_activation(config, "activation", "gelu"),
      .bias = bias};
  const auto make = shape.parallel ? parallel_block : sequential_block;
  set_blocks(arch, make(
                       block_norms(shape, norm), program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

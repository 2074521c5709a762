// MPT: ALiBi instead of positions, layer norms and Linears without biases.
#include <string>
#include <string_view>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

void require_text(const ConfigReader& config, std::string_view key,
                  std::string_view wanted) {
  if (config.text(key).value_or(std::string(wanted)) != wanted) {
    config.unsupported(key, std::string(wanted));
  }
}

// What transformers takes for granted, whatever is written.
void require_usual(const ConfigReader& config) {
  require_flag(config, "no_bias", true);
  require_text(config, "norm_type", "low_precision_layernorm");
  if (config.size("expansion_ratio").value_or(4) != 4) {
    config.unsupported("expansion_ratio", "4");
  }
  if (config.has("logit_scale")) config.unsupported("logit_scale", "null");
  // ALiBi takes the place of learned positions; the fraction is of gradients.
  for (const char* key :
       {"learned_pos_emb", "embedding_fraction", "init_config", "init_device",
        "initializer_range", "tokenizer_name", "verbose"}) {
    config.ignore(key);
  }
}

void require_usual_attention(const ConfigReader& attention) {
  require_text(attention, "attn_type", "multihead_attention");
  require_flag(attention, "alibi", true);
  require_flag(attention, "prefix_lm", false);
  require_flag(attention, "qk_ln", false);
  require_flag(attention, "attn_uses_sequence_id", false);
  if (attention.number("alibi_bias_max").value_or(8) != 8) {
    attention.unsupported("alibi_bias_max", "8");
  }
  // The object is written with the keys of every configuration.
  for (const char* key :
       {"_name_or_path", "attn_impl", "attn_pdrop", "chunk_size_feed_forward",
        "id2label", "label2id", "model_type", "return_dict"}) {
    attention.ignore(key);
  }
}

}  // namespace

void describe_mpt(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.hidden = "d_model",
              .ffn = "",
              .layers = "n_layers",
              .heads = "n_heads",
              .kv_heads = "",
              .head_dim = "",
              .max_positions = "max_seq_len",
              .default_hidden = 2048,
              .default_layers = 24,
              .default_heads = 16,
              .default_vocabulary = 50368,
              .default_ffn_factor = 4},
             arch);
  require_usual(config);
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.final_norm = "transformer.norm_f";
  arch.block_prefix = "transformer.blocks.";
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5)};
  read_tied_head(config, true, arch);
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.prefix = "attn.",
                          .o = "out_proj",
                          .qkv = "Wqkv",
                          .hidden = arch.hidden,
                          .attention = attention_of(arch)};
  attention.attention.slopes =
      program.constant("alibi_slopes", alibi_slopes(arch.heads));
  if (const auto keys = config.object("attn_config")) {
    require_usual_attention(*keys);
    if (keys->has("softmax_scale")) {
      attention.attention.scale =
          static_cast<float>(require_positive(*keys, "softmax_scale"));
    }
    if (keys->number("clip_qkv").value_or(0) != 0) {
      attention.clip = static_cast<float>(require_positive(*keys, "clip_qkv"));
    }
  }
  const PlainMlp mlp{.prefix = "ffn.",
                     .up = "up_proj",
                     .down = "down_proj",
                     .ffn = arch.ffn,
                     .hidden = arch.hidden,
                     .activation = Activation::kGeluErf,
                     .bias = false};
  set_blocks(arch, sequential_block(
                       {.before_attention = "norm_1",
                        .before_mlp = "norm_2",
                        .options = arch.final_norm_options},
                       program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

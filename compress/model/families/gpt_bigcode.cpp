// SantaCoder and StarCoder (arXiv:2305.06161): GPT-2 whose query heads share
// one key and value head, weights stored [out, in].
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Of how the reference computes and of other tasks.
void ignore_others(const ConfigReader& config) {
  for (const char* key :
       {"attention_softmax_in_fp32", "inference_runner", "max_batch_size",
        "max_sequence_length", "n_ctx", "pad_key_length",
        "pre_allocate_kv_cache", "scale_attention_softmax_in_fp32",
        "summary_activation", "summary_proj_to_labels", "summary_type",
        "summary_use_proj", "validate_runner_input"}) {
    config.ignore(key);
  }
}

}  // namespace

void describe_gpt_bigcode(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.hidden = "n_embd",
              .ffn = "n_inner",
              .layers = "n_layer",
              .heads = "n_head",
              .kv_heads = "",
              .head_dim = "",
              .max_positions = "n_positions",
              .default_hidden = 768,
              .default_layers = 12,
              .default_heads = 12,
              .default_vocabulary = 50257,
              .default_ffn_factor = 4,
              .default_max_positions = 1024},
             arch);
  ignore_others(config);
  require_flag(config, "add_cross_attention", false);
  const bool shared = config.flag("multi_query").value_or(true);
  if (shared) arch.kv_heads = 1;
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.position_embedding = "transformer.wpe";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.other_places = {{.body = "", .head = "lm_head"}};
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  read_tied_head(config, true, arch);
  arch.hf_class.reads_weights_early = true;
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.prefix = "attn.",
                          .o = "c_proj",
                          .qkv = "c_attn",
                          .qkv_groups = shared ? 1 : arch.heads,
                          .hidden = arch.hidden,
                          .qkv_bias = true,
                          .o_bias = true,
                          .attention = attention_of(arch)};
  if (!config.flag("scale_attn_weights").value_or(true)) {
    attention.attention.scale = 1;
  }
  const PlainMlp mlp{.up = "c_fc",
                     .down = "c_proj",
                     .ffn = arch.ffn,
                     .hidden = arch.hidden,
                     .activation = read_activation(
                         config, "activation_function", "gelu_pytorch_tanh")};
  set_blocks(arch, sequential_block(
                       {.before_attention = "ln_1",
                        .before_mlp = "ln_2",
                        .options = arch.final_norm_options},
                       program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace llmpress

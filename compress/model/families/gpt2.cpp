// GPT-2: learned positions, layer norms, weights stored [in, out].
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

LinearStorage transposed(const char* tensor) {
  return {.tensor = tensor, .transposed = true};
}

BlockSpec block(const Architecture& arch, Activation activation, float scale) {
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{.prefix = "attn.",
                          .o = "c_proj",
                          .qkv = "c_attn",
                          .qkv_storage = transposed("attn.c_attn.weight"),
                          .o_storage = transposed("attn.c_proj.weight"),
                          .hidden = arch.hidden,
                          .qkv_bias = true,
                          .o_bias = true,
                          .attention = attention_of(arch)};
  attention.attention.scale = scale;
  const PlainMlp mlp{.up = "c_fc",
                     .down = "c_proj",
                     .ffn = arch.ffn,
                     .hidden = arch.hidden,
                     .activation = activation,
                     .up_storage = transposed("mlp.c_fc.weight"),
                     .down_storage = transposed("mlp.c_proj.weight")};
  return sequential_block(
      {.before_attention = "ln_1",
       .before_mlp = "ln_2",
       .options = arch.final_norm_options},
      program, [&](ValueId x) { return self_attention(program, x, attention); },
      [&](ValueId x) { return plain_mlp(program, x, mlp); });
}

}  // namespace

void describe_gpt2(const ConfigReader& config, Architecture& arch) {
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
  for (const char* key :
       {"n_ctx", "summary_type", "summary_use_proj", "summary_activation",
        "summary_proj_to_labels", "reorder_and_upcast_attn"}) {
    config.ignore(key);
  }
  require_flag(config, "add_cross_attention", false);
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
  const Activation activation =
      read_activation(config, "activation_function", "gelu_new");
  const float scale = config.flag("scale_attn_weights").value_or(true)
                          ? attention_scale(arch.head_dim)
                          : 1.0f;
  const bool by_layer =
      config.flag("scale_attn_by_inverse_layer_idx").value_or(false);
  std::vector<float> scales;
  for (std::size_t l = 0; l < arch.layers; ++l) {
    scales.push_back(by_layer ? scale / static_cast<float>(l + 1) : scale);
  }
  set_blocks_by(arch, scales, [&](float layer_scale) {
    return block(arch, activation, layer_scale);
  });
}

}  // namespace llmpress

// Bamba: Mamba-2 mixers, in some layers attention whose heads turn in half,
// each before a gated MLP.
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

// Whether each layer has attention.
std::vector<bool> read_attention_layers(const ConfigReader& config,
                                        std::size_t layers) {
  std::vector<bool> attention(layers, false);
  for (const std::size_t l : config.sizes("attn_layer_indices")) {
    if (l < layers) attention[l] = true;
  }
  return attention;
}

}  // namespace

void describe_bamba(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = 32,
              .default_heads = 32,
              .default_vocabulary = 128000,
              .default_ffn = 14336,
              .default_max_positions = 262144,
              .default_kv_heads = 8},
             arch);
  config.ignore("num_logits_to_keep");
  config.ignore("z_loss_coefficient");
  // The reference turns half of a head, whatever stands beside the object.
  config.ignore("partial_rotary_factor");
  const auto rope = find_rope(config);
  arch.ropes = {read_rope_object(
      config, rope, arch, arch.head_dim,
      {.theta = config.number("rope_theta").value_or(1e4), .partial = 0.5})};
  if (config.size("attn_rotary_emb").value_or(arch.ropes[0].dim) !=
      arch.ropes[0].dim) {
    config.unsupported("attn_rotary_emb", "half of a head");
  }
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  arch.final_norm = "model.final_layernorm";
  arch.final_norm_options = norm;
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = bias,
      .o_bias = bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  MambaMixer mixer =
      read_mamba_keys(config, arch.hidden,
                      require_size(config, "mamba_expand", 2) * arch.hidden);
  mixer.out_bias = mixer.in_bias;
  mixer.epsilon = norm.epsilon;
  const GatedMlp mlp{.prefix = "feed_forward.",
                     .ffn = arch.ffn,
                     .hidden = arch.hidden,
                     .activation = mixer.activation,
                     .bias = config.flag("mlp_bias").value_or(false)};
  set_blocks_by(
      arch, read_attention_layers(config, arch.layers), [&](bool attends) {
        ProgramBuilder program(arch.hidden);
        return sequential_block(
            {.before_mlp = "pre_ff_layernorm", .options = norm}, program,
            [&](ValueId x) {
              return attends ? self_attention(program, x, attention)
                             : mamba2_mixer(program, x, mixer);
            },
            [&](ValueId x) { return gated_mlp(program, x, mlp); });
      });
}

}  // namespace llmpress

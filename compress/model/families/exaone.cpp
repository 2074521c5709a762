// EXAONE 3 and 3.5 (arXiv:2412.04862): Llama under other names.
#include <string_view>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// The name that the released files use, or the usual one.
std::string_view one_of(const ConfigReader& config, std::string_view released,
                        std::string_view usual) {
  return config.has(usual) && !config.has(released) ? usual : released;
}

}  // namespace

void describe_exaone(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.layers = one_of(config, "num_layers", "num_hidden_layers"),
              .default_max_positions = 4096,
              .default_kv_heads = 8},
             arch);
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  const NormOptions norm{
      .epsilon = read_epsilon(
          config, one_of(config, "layer_norm_epsilon", "rms_norm_eps"), 1e-5)};
  arch.final_norm_options = norm;
  arch.ropes = {read_whole_rope(config, arch, 5e5)};
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(false);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .prefix = "attn.attention.",
      .o = "out_proj",
      .hidden = arch.hidden,
      .qkv_bias = bias,
      .o_bias = bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  const GatedMlp mlp{
      .gate = "c_fc_0",
      .up = "c_fc_1",
      .down = "c_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(
          config, one_of(config, "activation_function", "hidden_act"), "silu"),
      .bias = config.flag("mlp_bias").value_or(false)};
  set_blocks(
      arch,
      sequential_block(
          {.before_attention = "ln_1", .before_mlp = "ln_2", .options = norm},
          program,
          [&](ValueId x) { return self_attention(program, x, attention); },
          [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

}  // namespace llmpress

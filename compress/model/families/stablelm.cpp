// StableLM (arXiv:2402.17834): Llama's block with layer norms, part of a head
// turned; the larger ones normalize every head by a norm of its own and run
// attention and MLP in parallel.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

void describe_stablelm(const ConfigReader& config, Architecture& arch) {
  read_sizes(
      config,
      {.head_dim = "", .default_max_positions = 4096, .default_kv_heads = 32},
      arch);
  const NormOptions norm{
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5),
      .bias = true};
  arch.final_norm_options = norm;
  read_tied_head(config, false, arch);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.25})};
  ProgramBuilder program(arch.hidden);
  SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = config.flag("use_qkv_bias").value_or(false),
      .q_norm = "q_layernorm.norms.%",
      .k_norm = "k_layernorm.norms.%",
      .norms_by_head = true,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  if (config.flag("qk_layernorm").value_or(false)) {
    attention.qk_norm = norm;
    attention.qk_norm->bias = false;
  }
  const GatedMlp mlp{
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu")};
  const bool parallel = config.flag("use_parallel_residual").value_or(false);
  BlockNorms norms{.options = norm};
  if (parallel) norms.before_mlp = "";
  const auto make = parallel ? parallel_block : sequential_block;
  set_blocks(arch, make(
                       norms, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return gated_mlp(program, x, mlp); }));
}

}  // namespace llmpress

// Decoders whose MLP is down(relu(up(x))^2): Nemotron-4 (arXiv:2402.16819),
// with layer norms whose gain is stored less 1 and heads that turn in part;
// Jais 2, with layer norms; Arcee's AFM, a Llama otherwise.
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Reads what the three have in common. The rotary embedding is ropes[0].
void finish(const ConfigReader& config, const NormOptions& norm,
            bool default_bias, Architecture& arch) {
  arch.final_norm_options = norm;
  read_tied_head(config, false, arch);
  const bool bias = config.flag("attention_bias").value_or(default_bias);
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = bias,
      .o_bias = bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch)};
  const PlainMlp mlp{
      .up = "up_proj",
      .down = "down_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "relu2"),
      .bias = config.flag("mlp_bias").value_or(default_bias)};
  set_blocks(arch, sequential_block(
                       {.options = norm}, program,
                       [&](ValueId x) {
                         return self_attention(program, x, attention);
                       },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace

void describe_nemotron(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 4096}, arch);
  arch.ropes = {read_rope(config, arch, arch.head_dim, {.partial = 0.5})};
  finish(config,
         {.kind = NormKind::kLayer,
          .epsilon = read_epsilon(config, "norm_eps", 1e-5),
          .bias = true,
          .offset = 1},
         false, arch);
}

void describe_arcee(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 4096}, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  finish(config, {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)}, false,
         arch);
}

void describe_jais2(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_max_positions = 8192}, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  finish(config,
         {.kind = NormKind::kLayer,
          .epsilon = read_epsilon(config, "layer_norm_eps", 1e-5),
          .bias = true},
         true, arch);
}

}  // namespace llmpress

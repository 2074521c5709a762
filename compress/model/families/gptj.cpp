// GPT-J: pairs of neighbouring coordinates turn, attention and MLP read one
// norm in parallel, the head has a bias. CodeGen (arXiv:2203.13474): the same,
// with one Linear for queries, values and keys.
#include <functional>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {

namespace {

// Of the widths of CodeGen's fused Linear, which was trained in as many parts.
constexpr std::size_t kCodegenParts = 4;

ValueId codegen_attention(ProgramBuilder& program, ValueId x,
                          const SelfAttention& part) {
  const std::size_t width = part.hidden / kCodegenParts;
  const ValueId all =
      program.linear(x, part.prefix + "qkv_proj", 3 * part.hidden);
  const auto qvk = program.split(all, kCodegenParts, {width, width, width},
                                 {Axis::kQuery, Axis::kValue, Axis::kKey});
  const ValueId mixed = program.attention(program.rope(qvk[0], *part.rope),
                                          program.rope(qvk[2], *part.rope),
                                          qvk[1], part.attention);
  return program.linear(mixed, part.prefix + part.o, part.hidden,
                        {.axis = Axis::kHidden});
}

void describe(const ConfigReader& config,
              const std::function<ValueId(ProgramBuilder&, ValueId,
                                          const SelfAttention&)>& attend,
              Architecture& arch) {
  read_sizes(config,
             {.hidden = "n_embd",
              .ffn = "n_inner",
              .layers = "n_layer",
              .heads = "n_head",
              .kv_heads = "",
              .head_dim = "",
              .max_positions = "n_positions",
              .default_ffn_factor = 4},
             arch);
  for (const char* key : {"n_ctx", "summary_type", "summary_use_proj",
                          "summary_activation", "summary_proj_to_labels"}) {
    config.ignore(key);
  }
  require_flag(config, "rotary", true);
  require_flag(config, "scale_attn_weights", true);
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.head_bias = true;
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  read_tied_head(config, false, arch);
  const std::size_t turning = require_size(config, "rotary_dim", 64);
  if (turning > arch.head_dim || turning % 2 != 0) {
    config.invalid("rotary_dim", "an even number up to the width of a head");
  }
  arch.ropes = {{.dim = turning}};
  ProgramBuilder program(arch.hidden);
  const SelfAttention attention{.prefix = "attn.",
                                .o = "out_proj",
                                .hidden = arch.hidden,
                                .rope = RopeOp{.rope = 0,
                                               .head_dim = arch.head_dim,
                                               .style = RopeStyle::kPairs},
                                .attention = attention_of(arch)};
  const PlainMlp mlp{
      .up = "fc_in",
      .down = "fc_out",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "activation_function", "gelu_new")};
  set_blocks(arch, parallel_block(
                       {.before_attention = "ln_1",
                        .before_mlp = "",
                        .options = arch.final_norm_options},
                       program,
                       [&](ValueId x) { return attend(program, x, attention); },
                       [&](ValueId x) { return plain_mlp(program, x, mlp); }));
}

}  // namespace

void describe_gptj(const ConfigReader& config, Architecture& arch) {
  describe(config, self_attention, arch);
}

void describe_codegen(const ConfigReader& config, Architecture& arch) {
  if (require_size(config, "n_embd") % kCodegenParts != 0) {
    config.invalid("n_embd", "a multiple of 4");
  }
  describe(config, codegen_attention, arch);
}

}  // namespace llmpress

// GPT-Neo: GPT-2 with a window in every other layer, scores that are not
// scaled, and Linears stored [out, in].
#include <string>
#include <vector>

#include "compress/core/formatted.h"
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// `attention_layers` [layers], in the files beside the shorter attention_types
// that it follows from.
std::vector<std::size_t> read_windows(const ConfigReader& config,
                                      std::size_t layers) {
  const std::size_t window = require_size(config, "window_size", 256);
  const std::vector<std::string> types = config.texts("attention_layers");
  config.ignore("attention_types");
  if (types.size() != layers) {
    config.invalid("attention_layers", formatted("{} of them", layers));
  }
  std::vector<std::size_t> windows;
  for (const std::string& type : types) {
    if (type != "global" && type != "local") {
      config.unsupported("attention_layers", "global or local");
    }
    windows.push_back(type == "local" ? window : 0);
  }
  return windows;
}

}  // namespace

void describe_gpt_neo(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.layers = "num_layers",
              .heads = "num_heads",
              .kv_heads = "",
              .head_dim = "",
              .default_hidden = 2048,
              .default_layers = 24,
              .default_heads = 16,
              .default_vocabulary = 50257,
              .default_ffn_factor = 4},
             arch);
  for (const char* key :
       {"summary_activation", "summary_first_dropout", "summary_proj_to_labels",
        "summary_type", "summary_use_proj"}) {
    config.ignore(key);
  }
  arch.body = "transformer.";
  arch.embedding = "transformer.wte";
  arch.position_embedding = "transformer.wpe";
  arch.final_norm = "transformer.ln_f";
  arch.block_prefix = "transformer.h.";
  arch.final_norm_options = {
      .kind = NormKind::kLayer,
      .epsilon = read_epsilon(config, "layer_norm_epsilon", 1e-5),
      .bias = true};
  read_tied_head(config, true, arch);
  const PlainMlp mlp{
      .up = "c_fc",
      .down = "c_proj",
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "activation_function", "gelu_new")};
  set_blocks_by(
      arch, read_windows(config, arch.layers), [&](std::size_t window) {
        SelfAttention attention{.prefix = "attn.attention.",
                                .o = "out_proj",
                                .hidden = arch.hidden,
                                .o_bias = true,
                                .attention = attention_of(arch, window)};
        attention.attention.scale = 1;
        ProgramBuilder program(arch.hidden);
        return sequential_block(
            {.before_attention = "ln_1",
             .before_mlp = "ln_2",
             .options = arch.final_norm_options},
            program,
            [&](ValueId x) { return self_attention(program, x, attention); },
            [&](ValueId x) { return plain_mlp(program, x, mlp); });
      });
}

}  // namespace llmpress

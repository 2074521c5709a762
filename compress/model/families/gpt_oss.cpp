// GPT-OSS (arXiv:2508.10925): attention with sinks, over a window in every
// other layer; experts with a clamped gate, stacked in memory and in files.
#include <algorithm>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr double kTheta = 150000;

// YaRN where the configuration does not speak of rotary embedding.
RopeConfig read_gpt_oss_rope(const ConfigReader& config,
                             const Architecture& arch) {
  RopeConfig rope = read_whole_rope(config, arch, kTheta);
  if (find_rope(config)) return rope;
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 32;
  rope.attention_factor = yarn_attention(rope.factor, 1);
  rope.truncate = false;
  rope.original_max_positions = 4096;
  return rope;
}

// Every other layer, from the first on, unless layer_types says otherwise.
std::vector<std::size_t> read_windows(const ConfigReader& config,
                                      std::size_t layers) {
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back(l % 2 == 0 ? "sliding_attention" : "full_attention");
  }
  types = read_layer_types(config, layers,
                           {"full_attention", "sliding_attention"}, types);
  const std::size_t window = read_window(config, 128);
  if (window == 0 &&
      std::ranges::find(types, "sliding_attention") != types.end()) {
    config.invalid("sliding_window", "a size");
  }
  return windows_of(types, window);
}

ValueId attention_with_sinks(ProgramBuilder& program, ValueId x,
                             SelfAttention part) {
  part.attention.sinks =
      program.parameter(part.prefix + "sinks", {part.attention.heads});
  return self_attention(program, x, part);
}

}  // namespace

void describe_gpt_oss(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 2880,
              .default_max_positions = 131072,
              .default_head_dim = 64,
              .default_kv_heads = 8},
             arch);
  const NormOptions norm{.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  const bool bias = config.flag("attention_bias").value_or(true);
  arch.ropes = {read_gpt_oss_rope(config, arch)};
  SelfAttention attention{.hidden = arch.hidden,
                          .qkv_bias = bias,
                          .o_bias = bias,
                          .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                          .attention = attention_of(arch)};
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_local_experts"}, 128, 4, arch),
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .clamped = ClampedGateOp{.alpha = static_cast<float>(require_positive(
                                   config, "swiglu_alpha", 1.702)),
                               .limit = static_cast<float>(require_positive(
                                   config, "swiglu_limit", 7.0))},
      .bias = true,
      .router = "mlp.router",
      .stack_transposed = true,
      .stack_interleaved = true};
  mixture.route.score = RouteScore::kTopKSoftmax;
  // The gate is what it is; the others repeat what other keys say.
  for (const char* key :
       {"hidden_act", "experts_per_token", "initial_context_length"}) {
    config.ignore(key);
  }
  set_blocks_by(
      arch, read_windows(config, arch.layers), [&](std::size_t window) {
        attention.attention.window = window;
        ProgramBuilder program(arch.hidden);
        return sequential_block(
            {.options = norm}, program,
            [&](ValueId x) {
              return attention_with_sinks(program, x, attention);
            },
            [&](ValueId x) { return mixture_of_experts(program, x, mixture); });
      });
  arch.final_norm_options = norm;
  arch.ffn = 0;
  arch.hf_class.experts = ExpertModules::kStackedOnly;
  read_tied_head(config, false, arch);
}

}  // namespace llmpress

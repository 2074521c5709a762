// Falcon-H1 (arXiv:2507.22448): in every block attention and a Mamba-2 mixer
// side by side, then a gated MLP, with factors on what goes into and out of
// each.
#include <vector>

#include "compress/core/formatted.h"
#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"
#include "compress/model/families/mamba_mixer.h"

namespace llmpress {
namespace {

struct Traits {
  NormOptions norm{};
  SelfAttention attention{};
  MambaMixer mixer{};
  Activation activation = Activation::kSilu;
  bool mlp_bias = false;
  float attention_in = 1, attention_out = 1, mixer_in = 1, mixer_out = 1;
  float gate = 1, down = 1;
};

ValueId scaled(ProgramBuilder& program, ValueId x, float factor) {
  return factor == 1 ? x : program.scale(x, factor);
}

// down(activation(f gate(x)) * up(x)).
ValueId mlp(ProgramBuilder& program, ValueId x, const Architecture& arch,
            const Traits& traits) {
  const LinearOptions inner{.bias = traits.mlp_bias, .axis = Axis::kFfn};
  ValueId gate = program.linear(x, "feed_forward.gate_proj", arch.ffn, inner);
  const ValueId up = program.linear(x, "feed_forward.up_proj", arch.ffn, inner);
  gate = scaled(program, gate, traits.gate);
  return program.linear(program.gate(gate, up, traits.activation),
                        "feed_forward.down_proj", arch.hidden,
                        {.bias = traits.mlp_bias, .axis = Axis::kHidden});
}

BlockSpec block(const Architecture& arch, const Traits& traits) {
  ProgramBuilder program(arch.hidden);
  const ValueId x =
      program.norm(program.stream(), "input_layernorm", traits.norm);
  const ValueId attended = self_attention(
      program, scaled(program, x, traits.attention_in), traits.attention);
  const ValueId mixed =
      mamba2_mixer(program, scaled(program, x, traits.mixer_in), traits.mixer);
  ValueId h = program.add(program.stream(), attended, traits.attention_out);
  h = program.add(h, mixed, traits.mixer_out);
  const ValueId y = program.norm(h, "pre_ff_layernorm", traits.norm);
  return program.finish(
      program.add(h, mlp(program, y, arch, traits), traits.down));
}

// Of so many factors, all 1 where the key is absent.
std::vector<float> read_factors(const ConfigReader& config, const char* key,
                                std::size_t count) {
  const std::vector<double> written = config.numbers(key);
  if (written.empty()) return std::vector<float>(count, 1.0f);
  if (written.size() != count) {
    config.invalid(key, formatted("{} numbers", count));
  }
  return {written.begin(), written.end()};
}

float read_factor(const ConfigReader& config, const char* key) {
  return static_cast<float>(config.number(key).value_or(1));
}

void read_mixer(const ConfigReader& config, const Architecture& arch,
                Traits& traits) {
  const std::size_t expanded =
      require_size(config, "mamba_expand", 2) * arch.hidden;
  const std::size_t inner = config.is_null("mamba_d_ssm")
                                ? expanded
                                : require_size(config, "mamba_d_ssm", 1024);
  traits.mixer = read_mamba_keys(config, arch.hidden, inner);
  traits.mixer.out_bias = config.flag("projectors_bias").value_or(false);
  traits.mixer.epsilon = traits.norm.epsilon;
  const bool norm_first = config.flag("mamba_norm_before_gate").value_or(true);
  traits.mixer.output = !config.flag("mamba_rms_norm").value_or(false)
                            ? MambaOutput::kGate
                        : norm_first ? MambaOutput::kNormThenGate
                                     : MambaOutput::kGateThenNorm;
  constexpr std::size_t kParts = 5;
  traits.mixer.factors = read_factors(config, "ssm_multipliers", kParts);
  traits.mixer_in = read_factor(config, "ssm_in_multiplier");
  traits.mixer_out = read_factor(config, "ssm_out_multiplier");
  if (!traits.mixer.in_bias) {
    // W (f x) = f (W x), so that in_proj reads what attention reads.
    for (float& factor : traits.mixer.factors) factor *= traits.mixer_in;
    traits.mixer_in = 1;
  }
  if (traits.mixer.factors == std::vector<float>(kParts, 1.0f)) {
    traits.mixer.factors.clear();
  }
}

}  // namespace

void describe_falcon_h1(const ConfigReader& config, Architecture& arch) {
  for (const char* key :
       {"num_logits_to_keep", "mamba_use_mlp", "mlp_expansion_factor",
        "attn_layer_indices", "time_step_min", "time_step_max",
        "time_step_floor", "time_step_rank"}) {
    config.ignore(key);
  }
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = 32,
              .default_heads = 32,
              .default_vocabulary = 128000,
              .default_ffn = 14336,
              .default_max_positions = 8192,
              .default_kv_heads = 8},
             arch);
  Traits traits;
  traits.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  const bool bias = config.flag("attention_bias").value_or(false);
  traits.attention = {.hidden = arch.hidden,
                      .qkv_bias = bias,
                      .o_bias = bias,
                      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                      .attention = attention_of(arch)};
  // The keys' factor goes into every score.
  traits.attention.attention.scale *= read_factor(config, "key_multiplier");
  traits.attention_in = read_factor(config, "attention_in_multiplier");
  traits.attention_out = read_factor(config, "attention_out_multiplier");
  read_mixer(config, arch, traits);
  const std::vector<float> factors = read_factors(config, "mlp_multipliers", 2);
  traits.gate = factors[0];
  traits.down = factors[1];
  traits.activation = read_activation(config, "hidden_act", "silu");
  traits.mlp_bias = config.flag("mlp_bias").value_or(false);
  arch.ropes = {read_whole_rope(config, arch)};
  arch.embedding_scale = read_factor(config, "embedding_multiplier");
  arch.logit_scale = read_factor(config, "lm_head_multiplier");
  arch.final_norm = "model.final_layernorm";
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  set_blocks(arch, block(arch, traits));
}

}  // namespace llmpress

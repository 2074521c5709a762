// MiniMax-01 (arXiv:2501.08313): lightning attention and softmax attention in
// turns, each before a mixture of experts; what a part adds is added to its
// normed input.
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// x -> keep x + add part(x).
struct Residual {
  float keep = 1, add = 1;
};

struct Traits {
  NormOptions norm{};
  SelfAttention attention{};
  MixtureOfExperts mixture{};
  Activation activation = Activation::kSilu;
  Residual linear{}, full{}, mlp{};
};

// How fast each head of a layer forgets (section 2.2.1 of TransNormerLLM,
// arXiv:2307.14995): 2^(-8 (h + 1) / heads), less in later layers.
std::vector<float> fading_rates(const Architecture& arch, std::size_t layer) {
  constexpr double kSmall = 1e-5;
  const double factor = 1 -
                        static_cast<double>(layer) /
                            (static_cast<double>(arch.layers) - 1 + kSmall) +
                        kSmall;
  const double base = std::exp2(-8 / static_cast<double>(arch.heads));
  std::vector<float> rates;
  for (std::size_t h = 1; h <= arch.heads; ++h) {
    rates.push_back(
        static_cast<float>(std::pow(base, static_cast<double>(h)) * factor));
  }
  return rates;
}

// out_proj(sigmoid(output_gate(x)) * norm(linear_attention(...))).
ValueId lightning_attention(ProgramBuilder& program, ValueId x,
                            const Architecture& arch, const Traits& traits,
                            std::size_t layer) {
  const std::string at = "self_attn.";
  const std::size_t width = arch.query_width(), d = arch.head_dim;
  const LinearOptions linear{.axis = Axis::kState};
  ValueId qkv = program.linear(x, at + "qkv_proj", 3 * width, linear);
  const ValueId gate = program.linear(x, at + "output_gate", width, linear);
  qkv = program.activation(qkv, traits.activation);
  const auto parts = program.split(qkv, arch.heads, {d, d, d},
                                   std::vector<Axis>(3, Axis::kState));
  const LinearAttentionOp op{
      .heads = arch.heads,
      .head_dim = d,
      .rate = program.constant("fading_rates", fading_rates(arch, layer)),
      .slot = program.state_slot(arch.heads * d * d)};
  // This norm's epsilon is none of the configuration's.
  const ValueId y =
      program.norm(program.apply(op, {parts[0], parts[1], parts[2]}),
                   at + "norm", {.epsilon = 1e-6f});
  return program.linear(program.gate(gate, y, Activation::kSigmoid),
                        at + "out_proj", arch.hidden, {.axis = Axis::kHidden});
}

ValueId add_part(ProgramBuilder& program, ValueId x, ValueId part,
                 Residual residual) {
  const ValueId kept = residual.keep == 1 ? x : program.scale(x, residual.keep);
  return program.add(kept, part, residual.add);
}

// `layer` of lightning attention, or none.
BlockSpec block(const Architecture& arch, const Traits& traits,
                std::optional<std::size_t> layer) {
  ProgramBuilder program(arch.hidden);
  const ValueId x =
      program.norm(program.stream(), "input_layernorm", traits.norm);
  const ValueId mixed =
      layer ? lightning_attention(program, x, arch, traits, *layer)
            : self_attention(program, x, traits.attention);
  const ValueId h =
      add_part(program, x, mixed, layer ? traits.linear : traits.full);
  const ValueId y = program.norm(h, "post_attention_layernorm", traits.norm);
  return program.finish(add_part(
      program, y, mixture_of_experts(program, y, traits.mixture), traits.mlp));
}

Residual read_residual(const ConfigReader& config, const std::string& name) {
  const auto factor = [&](const char* which) {
    return static_cast<float>(
        config.number(name + which + "_factor").value_or(1));
  };
  return {.keep = factor("_alpha"), .add = factor("_beta")};
}

MixtureOfExperts read_mixture(const ConfigReader& config, Activation activation,
                              Architecture& arch) {
  const std::string at = "block_sparse_moe.";
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_local_experts"}, 8, 2, arch),
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = activation,
      .router = at + "gate",
      .gate = at + "experts.%.w1",
      .up = at + "experts.%.w3",
      .down = at + "experts.%.w2",
      .router_tensor = "mlp.gate.weight"};
  mixture.route.normalize = true;
  return mixture;
}

// The layer's number for lightning attention, whose rates depend on it.
std::vector<std::optional<std::size_t>> read_kinds(const ConfigReader& config,
                                                   std::size_t layers) {
  std::vector<std::string> types;
  for (std::size_t l = 0; l < layers; ++l) {
    types.push_back(l % 2 == 0 ? "full_attention" : "linear_attention");
  }
  types = read_layer_types(config, layers,
                           {"linear_attention", "full_attention"}, types);
  std::vector<std::optional<std::size_t>> kinds(layers);
  for (std::size_t l = 0; l < layers; ++l) {
    if (types[l] == "linear_attention") kinds[l] = l;
  }
  return kinds;
}

}  // namespace

void describe_minimax(const ConfigReader& config, Architecture& arch) {
  config.ignore("block_size");
  read_sizes(config,
             {.default_hidden = 4096,
              .default_layers = 32,
              .default_heads = 32,
              .default_vocabulary = 32000,
              .default_ffn = 14336,
              .default_max_positions = 131072,
              .default_kv_heads = 8},
             arch);
  Traits traits;
  traits.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)};
  traits.activation = read_activation(config, "hidden_act", "silu");
  traits.attention = {.hidden = arch.hidden,
                      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                      .attention = attention_of(arch, read_window(config, 0))};
  traits.mixture = read_mixture(config, traits.activation, arch);
  traits.linear = read_residual(config, "linear_attn");
  traits.full = read_residual(config, "full_attn");
  traits.mlp = read_residual(config, "mlp");
  arch.ropes = {read_whole_rope(config, arch, 1e6)};
  arch.final_norm_options = traits.norm;
  read_tied_head(config, false, arch);
  set_blocks_by(arch, read_kinds(config, arch.layers),
                [&](std::optional<std::size_t> layer) {
                  return block(arch, traits, layer);
                });
  arch.ffn = 0;
}

}  // namespace llmpress

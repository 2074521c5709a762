// Mixtral (arXiv:2401.04088) and Phi-3.5-MoE (arXiv:2404.14219): every MLP is a
// mixture of experts.
#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr double kTheta = 1e6;
constexpr std::size_t kMaxPositions = 131072;

struct Traits {
  NormOptions norm{};
  bool attention_bias = false;
  RouteOp route{};
  std::string stacked_router{};
};

// Both write their experts as block_sparse_moe.experts.3.w1, w3 (gate, up) and
// w2, and hold them in stacks under `mlp` in memory.
void set_mixture_blocks(const ConfigReader& config, const Traits& traits,
                        Architecture& arch) {
  const SelfAttention attention{
      .hidden = arch.hidden,
      .qkv_bias = traits.attention_bias,
      .o_bias = traits.attention_bias,
      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
      .attention = attention_of(arch, read_window(config, 0))};
  const MixtureOfExperts mixture{
      .route = traits.route,
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = read_activation(config, "hidden_act", "silu"),
      .router = "block_sparse_moe.gate",
      .gate = "block_sparse_moe.experts.%.w1",
      .up = "block_sparse_moe.experts.%.w3",
      .down = "block_sparse_moe.experts.%.w2",
      .router_tensor = traits.stacked_router};
  ProgramBuilder program(arch.hidden);
  set_blocks(
      arch,
      sequential_block(
          {.options = traits.norm}, program,
          [&](ValueId x) { return self_attention(program, x, attention); },
          [&](ValueId x) { return mixture_of_experts(program, x, mixture); }));
  arch.final_norm_options = traits.norm;
  arch.ffn = 0;
  read_tied_head(config, false, arch);
}

// Phi-3.5-MoE writes the factors of cos and sin down, one up to the original
// context and one beyond. The reference takes the short factors of the
// frequencies for both.
RopeConfig read_phimoe_rope(const ConfigReader& config,
                            const Architecture& arch) {
  RopeConfig rope = read_whole_rope(config, arch, kTheta);
  if (rope.scaling == RopeScaling::kNone) return rope;
  const ConfigReader written = *find_rope(config);
  if (rope.scaling != RopeScaling::kLongRope) {
    written.unsupported(written.has("rope_type") ? "rope_type" : "type",
                        "default or longrope");
  }
  rope.attention_factor = require_positive(written, "short_mscale");
  if (require_positive(written, "long_mscale") != rope.attention_factor) {
    written.unsupported("long_mscale", "short_mscale");
  }
  rope.long_factor = rope.short_factor;
  return rope;
}

}  // namespace

void describe_mixtral(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 14336,
              .default_max_positions = kMaxPositions,
              .default_kv_heads = 8},
             arch);
  arch.ropes = {read_whole_rope(config, arch, kTheta)};
  Traits traits{.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)},
                .route = read_route(
                    config, {"num_local_experts", "num_experts"}, 8, 2, arch),
                .stacked_router = "mlp.gate.weight"};
  traits.route.normalize = true;
  set_mixture_blocks(config, traits, arch);
}

void describe_phimoe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 6400,
              .default_max_positions = kMaxPositions,
              .default_kv_heads = 8},
             arch);
  arch.ropes = {read_phimoe_rope(config, arch)};
  // Already in the rope's factors.
  config.ignore("original_max_position_embeddings");
  Traits traits{.norm = {.kind = NormKind::kLayer,
                         .epsilon = read_epsilon(config, "rms_norm_eps", 1e-5),
                         .bias = true},
                .attention_bias = config.flag("attention_bias").value_or(false),
                .route = read_route(config, {"num_local_experts"}, 16, 2, arch),
                .stacked_router = "mlp.router.weight"};
  traits.route.score = RouteScore::kSparseMixer;
  traits.route.jitter =
      static_cast<float>(config.number("router_jitter_noise").value_or(0.01));
  if (traits.route.top != 2) config.unsupported("num_experts_per_tok", "2");
  arch.head_bias = config.flag("lm_head_bias").value_or(false);
  set_mixture_blocks(config, traits, arch);
}

}  // namespace llmpress

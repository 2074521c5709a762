// The text part of Llama 4: rotary embedding within chunks of the context,
// layers without positions over all of it, and experts whose weights multiply
// what goes in.
#include <algorithm>
#include <string>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

constexpr double kTheta = 500000;

struct LayerKind {
  bool turns = true;      // rotary embedding, then norms of q and k
  bool mixed = true;      // experts, or a dense MLP
  std::size_t chunk = 0;  // 0: sees everything
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  NormOptions norm{};
  bool bias = false, qk_norm = true;
  std::optional<PositionScaleOp> temperature{};
  AttentionOp attention{};
  GatedMlp dense{};
  MixtureOfExperts mixture{};
};

ValueId attention_part(ProgramBuilder& program, ValueId x, std::size_t hidden,
                       const Traits& traits, const LayerKind& kind) {
  AttentionOp op = traits.attention;
  op.chunk = kind.chunk;
  const auto in = [&](const char* name, std::size_t heads, Axis axis) {
    return program.linear(x, std::string("self_attn.") + name,
                          heads * op.head_dim,
                          {.bias = traits.bias, .axis = axis});
  };
  ValueId q = in("q_proj", op.heads, Axis::kQuery);
  ValueId k = in("k_proj", op.kv_heads, Axis::kKey);
  const ValueId v = in("v_proj", op.kv_heads, Axis::kValue);
  if (kind.turns) {
    const RopeOp rope{
        .rope = 0, .head_dim = op.head_dim, .style = RopeStyle::kPairs};
    q = program.rope(q, rope);
    k = program.rope(k, rope);
    if (traits.qk_norm) {
      const NormOptions heads{.epsilon = traits.norm.epsilon,
                              .unit = op.head_dim};
      q = program.plain_norm(q, heads);
      k = program.plain_norm(k, heads);
    }
  } else if (traits.temperature) {
    q = program.apply(*traits.temperature, {q});
  }
  return program.linear(program.attention(q, k, v, op), "self_attn.o_proj",
                        hidden, {.bias = traits.bias, .axis = Axis::kHidden});
}

// no_rope_layers holds 1 where a layer turns.
void read_turning_layers(const ConfigReader& config,
                         std::vector<LayerKind>& layers) {
  const std::size_t interval =
      require_size(config, "no_rope_layer_interval", 4);
  const std::vector<std::size_t> turns = config.sizes("no_rope_layers");
  if (!turns.empty() && turns.size() < layers.size()) {
    config.invalid("no_rope_layers", "an entry for every layer");
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    layers[l].turns = turns.empty() ? (l + 1) % interval != 0 : turns[l] != 0;
  }
}

void read_chunks(const ConfigReader& config, std::vector<LayerKind>& layers) {
  const bool chunked = !config.is_null("attention_chunk_size");
  const std::size_t chunk =
      chunked ? require_size(config, "attention_chunk_size", 8192) : 0;
  std::vector<std::string> types;
  for (const LayerKind& layer : layers) {
    types.push_back(layer.turns && chunked ? "chunked_attention"
                                           : "full_attention");
  }
  types = read_layer_types(config, layers.size(),
                           {"full_attention", "chunked_attention"}, types);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (types[l] != "chunked_attention") continue;
    if (!chunked) config.invalid("attention_chunk_size", "a size");
    layers[l].chunk = chunk;
  }
}

void read_mixed_layers(const ConfigReader& config,
                       std::vector<LayerKind>& layers) {
  const std::size_t step = require_size(config, "interleave_moe_layer_step", 1);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    layers[l].mixed = (l + 1) % step == 0;
  }
  if (!config.has("moe_layers")) return;
  const std::vector<std::size_t> mixed = config.sizes("moe_layers");
  for (std::size_t l = 0; l < layers.size(); ++l) {
    layers[l].mixed = std::ranges::find(mixed, l) != mixed.end();
  }
}

GatedMlp read_dense(const ConfigReader& config, const Architecture& arch) {
  return {.prefix = "feed_forward.",
          .ffn = require_size(config, "intermediate_size_mlp", 16384),
          .hidden = arch.hidden,
          .activation = read_activation(config, "hidden_act", "silu")};
}

MixtureOfExperts read_mixture(const ConfigReader& config, const GatedMlp& dense,
                              Architecture& arch) {
  MixtureOfExperts mixture{
      .route = read_route(config, {"num_local_experts"}, 16, 1, arch),
      .ffn = arch.ffn,
      .hidden = arch.hidden,
      .activation = dense.activation,
      .weigh_input = true,
      .shared = dense,
      .router = "feed_forward.router",
      .gate = "feed_forward.experts.%.gate_proj",
      .up = "feed_forward.experts.%.up_proj",
      .down = "feed_forward.experts.%.down_proj",
      .gate_up_stack = "feed_forward.experts.gate_up_proj",
      .down_stack = "feed_forward.experts.down_proj",
      .stack_transposed = true};
  mixture.route.score = RouteScore::kTopKSigmoid;
  mixture.shared->prefix = "feed_forward.shared_expert.";
  mixture.shared->ffn = arch.ffn;
  return mixture;
}

std::optional<PositionScaleOp> read_temperature(const ConfigReader& config) {
  const PositionScaleOp op{
      .slope = static_cast<float>(config.number("attn_scale").value_or(0.1)),
      .floor_positions = require_positive(config, "floor_scale", 8192.0)};
  const bool on = config.flag("attn_temperature_tuning").value_or(true);
  return on ? std::optional(op) : std::nullopt;
}

}  // namespace

void describe_llama4_text(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_ffn = 8192,
              .default_max_positions = 131072,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  Traits traits{.norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-5)},
                .bias = config.flag("attention_bias").value_or(false),
                .qk_norm = config.flag("use_qk_norm").value_or(true),
                .temperature = read_temperature(config),
                .attention = attention_of(arch),
                .dense = read_dense(config, arch)};
  traits.mixture = read_mixture(config, traits.dense, arch);
  config.ignore("cache_implementation");
  std::vector<LayerKind> layers(arch.layers);
  read_turning_layers(config, layers);
  read_chunks(config, layers);
  read_mixed_layers(config, layers);
  set_blocks_by(arch, layers, [&](const LayerKind& kind) {
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = traits.norm}, program,
        [&](ValueId x) {
          return attention_part(program, x, arch.hidden, traits, kind);
        },
        [&](ValueId x) {
          return kind.mixed ? mixture_of_experts(program, x, traits.mixture)
                            : gated_mlp(program, x, traits.dense);
        });
  });
  arch.ropes = {read_whole_rope(config, arch, kTheta)};
  arch.final_norm_options = traits.norm;
  arch.ffn = 0;
  arch.hf_class.experts = ExpertModules::kLinears;
  read_tied_head(config, false, arch);
}

}  // namespace llmpress

// DeepSeek-V3's routing beside attention whose heads are normed: dots.llm1
// (arXiv:2506.05767), with windows in the last layers; K-EXAONE, with windows
// in most layers, of which only those turn; Solar Open, without the norms.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/model/families/config_keys.h"
#include "compress/model/families/expert_blocks.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

struct LayerKind {
  bool mixed = true;  // experts, or a dense MLP
  std::size_t window = 0;
  bool turns = true;
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  SelfAttention attention{};
  GatedMlp dense{};
  MixtureOfExperts mixture{};
};

// All but the route; `shared_key` is the number of experts of all tokens.
Traits read_traits(const ConfigReader& config, double default_epsilon,
                   std::size_t default_expert_ffn, std::string_view shared_key,
                   std::optional<std::size_t> default_shared,
                   Architecture& arch) {
  arch.final_norm_options = {
      .epsilon = read_epsilon(config, "rms_norm_eps", default_epsilon)};
  read_tied_head(config, false, arch);
  Traits traits;
  traits.attention = {.hidden = arch.hidden,
                      .rope = RopeOp{.rope = 0, .head_dim = arch.head_dim},
                      .attention = attention_of(arch)};
  traits.dense = {.ffn = arch.ffn,
                  .hidden = arch.hidden,
                  .activation = read_activation(config, "hidden_act", "silu")};
  traits.mixture = {
      .ffn = require_size(config, "moe_intermediate_size", default_expert_ffn),
      .hidden = arch.hidden,
      .activation = traits.dense.activation,
      .correction_bias = "mlp.gate.e_score_correction_bias",
      .shared = traits.dense};
  traits.mixture.shared->prefix = "mlp.shared_experts.";
  traits.mixture.shared->ffn =
      traits.mixture.ffn * require_size(config, shared_key, default_shared);
  // Layers beyond num_hidden_layers that guess further tokens.
  config.ignore("num_nextn_predict_layers");
  return traits;
}

void norm_heads(const Architecture& arch, Traits& traits) {
  traits.attention.qk_norm = arch.final_norm_options;
  traits.attention.qk_norm->unit = arch.head_dim;
}

void finish(const Traits& traits, const std::vector<LayerKind>& layers,
            Architecture& arch) {
  set_blocks_by(arch, layers, [&](const LayerKind& kind) {
    SelfAttention attention = traits.attention;
    attention.attention.window = kind.window;
    if (!kind.turns) attention.rope.reset();
    ProgramBuilder program(arch.hidden);
    return sequential_block(
        {.options = arch.final_norm_options}, program,
        [&](ValueId x) { return self_attention(program, x, attention); },
        [&](ValueId x) {
          return kind.mixed ? mixture_of_experts(program, x, traits.mixture)
                            : gated_mlp(program, x, traits.dense);
        });
  });
  arch.ffn = 0;
}

// Settings of the code that came with the first checkpoints.
void require_routing(const ConfigReader& config) {
  const std::string score = config.text("scoring_func").value_or("sigmoid");
  if (score != "sigmoid" && score != "noaux_tc") {
    config.unsupported("scoring_func", "sigmoid");
  }
  if (config.text("topk_method").value_or("noaux_tc") != "noaux_tc") {
    config.unsupported("topk_method", "noaux_tc");
  }
  if (config.size("moe_layer_freq").value_or(1) != 1) {
    config.unsupported("moe_layer_freq", "1");
  }
}

std::vector<std::string> full_types(std::size_t layers) {
  return std::vector<std::string>(layers, "full_attention");
}

void set_windows(const ConfigReader& config,
                 const std::vector<std::string>& types, std::size_t window,
                 std::vector<LayerKind>& layers) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (types[l] != "sliding_attention") continue;
    if (window == 0) config.invalid("sliding_window", "a size");
    layers[l].window = window;
  }
}

}  // namespace

void describe_dots1(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 10944, .default_kv_heads = 32}, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  Traits traits = read_traits(config, 1e-6, 1408, "n_shared_experts", {}, arch);
  norm_heads(arch, traits);
  const bool bias = config.flag("attention_bias").value_or(false);
  traits.attention.qkv_bias = traits.attention.o_bias = bias;
  traits.mixture.route =
      read_sigmoid_route(config, {.experts = 0, .top = 0}, 1, arch);
  traits.mixture.route.normalize =
      config.flag("norm_topk_prob").value_or(false);
  require_routing(config);
  const std::size_t dense = config.size("first_k_dense_replace").value_or(0);
  const std::size_t window = read_window(config, 4096);
  const std::size_t below = config.size("max_window_layers").value_or(62);
  std::vector<std::string> types = full_types(arch.layers);
  std::vector<LayerKind> layers;
  for (std::size_t l = 0; l < arch.layers; ++l) {
    layers.push_back({.mixed = l >= dense});
    if (window != 0 && l >= below) types[l] = "sliding_attention";
  }
  types = read_layer_types(config, arch.layers,
                           {"full_attention", "sliding_attention"}, types);
  set_windows(config, types, window, layers);
  finish(traits, layers, arch);
}

void describe_exaone_moe(const ConfigReader& config, Architecture& arch) {
  read_sizes(config, {.default_ffn = 16384, .default_kv_heads = 32}, arch);
  arch.ropes = {read_whole_rope(config, arch)};
  Traits traits =
      read_traits(config, 1e-5, 1024, "num_shared_experts", 1, arch);
  norm_heads(arch, traits);
  traits.mixture.correction_bias = "mlp.e_score_correction_bias";
  RouteOp& route = traits.mixture.route;
  route = read_sigmoid_route(config, {.experts = 64, .top = 8}, 2.5, arch,
                             {"num_experts", "num_local_experts"});
  std::vector<LayerKind> layers;
  for (const bool mixed :
       read_mixed_types(config, arch.layers,
                        config.size("first_k_dense_replace").value_or(1))) {
    layers.push_back({.mixed = mixed});
  }
  const std::size_t window = read_window(config, 4096);
  std::vector<std::string> types = full_types(arch.layers);
  if (config.has("layer_types") || window == 0) {
    config.ignore("sliding_window_pattern");
  } else {
    types = alternating_layer_types(
        arch.layers, require_size(config, "sliding_window_pattern", 4));
  }
  types = read_layer_types(config, arch.layers,
                           {"full_attention", "sliding_attention"}, types);
  set_windows(config, types, window, layers);
  for (LayerKind& layer : layers) {
    layer.turns = layer.window != 0 || window == 0;
  }
  finish(traits, layers, arch);
}

void describe_solar_open(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.ffn = "",
              .default_hidden = 4096,
              .default_layers = 48,
              .default_heads = 64,
              .default_vocabulary = 196608,
              .default_max_positions = 131072,
              .default_head_dim = 128,
              .default_kv_heads = 8},
             arch);
  arch.ropes = {read_whole_rope(config, arch, 1e6)};
  Traits traits = read_traits(config, 1e-5, 1280, "n_shared_experts", 1, arch);
  traits.attention.qkv_bias = config.flag("attention_bias").value_or(false);
  traits.mixture.route =
      read_sigmoid_route(config, {.experts = 128, .top = 8}, 1, arch);
  require_routing(config);
  // The released files say so of layers that are none.
  if (config.size("first_k_dense_replace").value_or(0) != 0) {
    config.unsupported("first_k_dense_replace", "0");
  }
  require_flag(config, "use_qk_norm", false);
  finish(traits, std::vector<LayerKind>(arch.layers), arch);
}

}  // namespace llmpress

// Gemma 4: Gemma 3's block with inputs of each layer beside the stream, values
// normalized, wider heads in layers of full attention, and upper layers that
// read the keys and values of the last lower one of their kind.
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/families/common_blocks.h"
#include "compress/model/families/config_keys.h"
#include "compress/model/families/family.h"

namespace llmpress {
namespace {

// Channels of carried values: 0 holds the layers' inputs, these the keys (and
// values, the next one) of each kind of attention.
constexpr std::size_t kFullKeys = 1, kSlidingKeys = 3;

struct LayerKind {
  bool slides = false, stores = false;
  std::optional<std::size_t> shared{};  // the layer whose keys these are
  std::size_t head_dim = 0, kv_heads = 0, ffn = 0;
  bool operator==(const LayerKind&) const = default;
};

struct Traits {
  bool bias = false;            // of attention
  bool values_of_keys = false;  // in layers of full attention
  std::size_t window = 0;
  Activation activation = Activation::kGeluTanh;
  NormOptions norm{};
};

class Writer {
 public:
  Writer(const Architecture& arch, const Traits& traits, const LayerKind& kind)
      : arch_(arch), traits_(traits), kind_(kind), program_(arch.hidden) {}

  BlockSpec block() {
    const ValueId x = norm(program_.stream(), "input_layernorm");
    ValueId h = program_.add(program_.stream(),
                             norm(attention(x), "post_attention_layernorm"));
    const ValueId m = gated_mlp(program_, norm(h, "pre_feedforward_layernorm"),
                                {.ffn = kind_.ffn,
                                 .hidden = arch_.hidden,
                                 .activation = traits_.activation});
    h = program_.add(h, norm(m, "post_feedforward_layernorm"));
    if (arch_.layer_inputs.width != 0) h = add_layer_input(h);
    return program_.finish(program_.apply(
        ScaleOp{.parameter = program_.parameter("layer_scalar", {1})}, {h}));
  }

 private:
  ValueId norm(ValueId x, const std::string& name) {
    return program_.norm(x, name, traits_.norm);
  }
  NormOptions head_norm() const {
    NormOptions options = traits_.norm;
    options.unit = kind_.head_dim;
    return options;
  }
  ValueId project(ValueId x, const std::string& name, std::size_t heads,
                  Axis axis) {
    return program_.linear(x, "self_attn." + name, heads * kind_.head_dim,
                           {.bias = traits_.bias, .axis = axis});
  }

  ValueId attention(ValueId x) {
    const RopeOp rope{.rope = kind_.slides ? 1u : 0u,
                      .head_dim = kind_.head_dim};
    const std::size_t channel = kind_.slides ? kSlidingKeys : kFullKeys;
    ValueId q = project(x, "q_proj", arch_.heads, Axis::kQuery);
    ValueId k, v;
    if (kind_.shared) {
      const std::size_t width = kind_.kv_heads * kind_.head_dim;
      k = program_.carried("keys", width, Axis::kKey, channel);
      v = program_.carried("values", width, Axis::kValue, channel + 1);
    } else {
      k = project(x, "k_proj", kind_.kv_heads, Axis::kKey);
      v = traits_.values_of_keys && !kind_.slides
              ? k
              : project(x, "v_proj", kind_.kv_heads, Axis::kValue);
      v = program_.plain_norm(v, head_norm());
      k = program_.norm(k, "self_attn.k_norm", head_norm());
      k = program_.rope(k, rope);
    }
    q = program_.norm(q, "self_attn.q_norm", head_norm());
    q = program_.rope(q, rope);
    if (kind_.stores) {
      program_.carry_out(k, channel);
      program_.carry_out(v, channel + 1);
    }
    const ValueId mixed =
        program_.attention(q, k, v,
                           {.heads = arch_.heads,
                            .kv_heads = kind_.kv_heads,
                            .head_dim = kind_.head_dim,
                            .value_dim = kind_.head_dim,
                            .window = kind_.slides ? traits_.window : 0,
                            .shared_layer = kind_.shared});
    return program_.linear(mixed, "self_attn.o_proj", arch_.hidden,
                           {.bias = traits_.bias, .axis = Axis::kHidden});
  }

  // h + norm(projection(activation(gate(h)) * input of the layer)).
  ValueId add_layer_input(ValueId h) {
    const std::size_t width = arch_.layer_inputs.width;
    const ValueId all =
        program_.carried("layer_inputs", arch_.layers * width, Axis::kOther, 0);
    const ValueId input =
        program_.apply(LayerColumnsOp{width}, {all}, width, Axis::kOther);
    const ValueId gate = program_.linear(h, "per_layer_input_gate", width);
    const ValueId out = program_.linear(
        program_.gate(gate, input, traits_.activation), "per_layer_projection",
        arch_.hidden, {.axis = Axis::kHidden});
    return program_.add(h, norm(out, "post_per_layer_input_norm"));
  }

  const Architecture& arch_;
  const Traits& traits_;
  const LayerKind& kind_;
  ProgramBuilder program_;
};

// head_dim and key/value heads by layer: in `per_layer_config`, or (older) one
// number each for all layers of full attention.
void read_heads(const ConfigReader& config, const Architecture& arch,
                bool values_of_keys, std::vector<LayerKind>& kinds) {
  const auto by_layer = config.object("per_layer_config");
  const std::size_t global_dim = require_size(config, "global_head_dim", 512);
  const std::size_t global_kv =
      require_size(config, "num_global_key_value_heads", arch.kv_heads);
  for (std::size_t l = 0; l < kinds.size(); ++l) {
    kinds[l].head_dim = arch.head_dim;
    kinds[l].kv_heads = arch.kv_heads;
    if (by_layer) {
      if (const auto own = by_layer->object(std::to_string(l))) {
        kinds[l].head_dim = require_size(*own, "head_dim", arch.head_dim);
        kinds[l].kv_heads =
            require_size(*own, "num_key_value_heads", arch.kv_heads);
      }
    } else if (!kinds[l].slides) {
      kinds[l].head_dim = global_dim;
      if (values_of_keys) kinds[l].kv_heads = global_kv;
    }
    if (arch.heads % kinds[l].kv_heads != 0) {
      config.invalid("num_key_value_heads", "a divisor of the query heads");
    }
  }
}

// The last `num_kv_shared_layers` layers read keys of the last one before them
// with the same kind of attention.
void share_keys(const ConfigReader& config, std::vector<LayerKind>& kinds) {
  const std::size_t shared = config.size("num_kv_shared_layers").value_or(0);
  if (shared >= kinds.size()) {
    config.unsupported("num_kv_shared_layers", "fewer than all layers");
  }
  const std::size_t first = kinds.size() - shared;
  const bool wide = config.flag("use_double_wide_mlp").value_or(false);
  for (std::size_t l = first; l < kinds.size(); ++l) {
    std::size_t source = first;
    while (source > 0 && kinds[source - 1].slides != kinds[l].slides) --source;
    if (source == 0) {
      config.invalid("num_kv_shared_layers",
                     "a layer of the same type that is not shared");
    }
    kinds[l].shared = source - 1;
    kinds[source - 1].stores = true;
    if (wide) kinds[l].ffn *= 2;
  }
}

RopeConfig read_layer_rope(const ConfigReader& config, const Architecture& arch,
                           const std::string& type,
                           const std::vector<LayerKind>& kinds) {
  const auto all = config.object("rope_parameters");
  const auto rope = all ? all->object(type) : std::nullopt;
  if (!rope) config.invalid("rope_parameters", "an object '" + type + "'");
  std::size_t dim = 0;
  for (const LayerKind& kind : kinds) {
    if (kind.slides != (type == "sliding_attention")) continue;
    if (dim != 0 && kind.head_dim != dim) {
      config.unsupported("per_layer_config",
                         "one head_dim for all layers of a type");
    }
    dim = kind.head_dim;
  }
  return read_rope_object(config, rope, arch, dim == 0 ? arch.head_dim : dim,
                          {});
}

void read_layer_inputs(const ConfigReader& config, float epsilon,
                       Architecture& arch) {
  const std::size_t width =
      config.size("hidden_size_per_layer_input").value_or(256);
  const std::size_t vocabulary =
      require_size(config, "vocab_size_per_layer_input", 262144);
  if (width == 0) return;
  arch.layer_inputs = {.width = width,
                       .vocabulary = vocabulary,
                       .embedding = "model.embed_tokens_per_layer",
                       .projection = "model.per_layer_model_projection",
                       .norm = "model.per_layer_projection_norm",
                       .epsilon = epsilon};
}

Traits read_traits(const ConfigReader& config, Architecture& arch) {
  require_flag(config, "enable_moe_block", false);
  if (config.text("use_bidirectional_attention").value_or("vision") !=
      "vision") {
    config.unsupported("use_bidirectional_attention", "null or vision");
  }
  Traits traits{
      .bias = config.flag("attention_bias").value_or(false),
      .values_of_keys = config.flag("attention_k_eq_v").value_or(false),
      .window = require_size(config, "sliding_window", 512),
      .activation =
          read_activation(config, "hidden_activation", "gelu_pytorch_tanh"),
      .norm = {.epsilon = read_epsilon(config, "rms_norm_eps", 1e-6)}};
  arch.final_norm_options = traits.norm;
  arch.embedding_scale = std::sqrt(static_cast<float>(arch.hidden));
  arch.logit_softcap = read_softcap(config, "final_logit_softcapping", 0);
  read_tied_head(config, true, arch);
  read_layer_inputs(config, traits.norm.epsilon, arch);
  return traits;
}

}  // namespace

void describe_gemma4_text(const ConfigReader& config, Architecture& arch) {
  read_sizes(config,
             {.default_hidden = 2304,
              .default_layers = 30,
              .default_heads = 8,
              .default_vocabulary = 262144,
              .default_ffn = 9216,
              .default_max_positions = 131072,
              .default_head_dim = 256,
              .default_kv_heads = 4},
             arch);
  const Traits traits = read_traits(config, arch);
  auto types = read_layer_types(config, arch.layers,
                                {"full_attention", "sliding_attention"},
                                alternating_layer_types(arch.layers, 6));
  types.back() = "full_attention";  // whatever is written, as in transformers
  std::vector<LayerKind> kinds;
  for (const std::string& type : types) {
    kinds.push_back({.slides = type == "sliding_attention", .ffn = arch.ffn});
  }
  read_heads(config, arch, traits.values_of_keys, kinds);
  share_keys(config, kinds);
  arch.ropes = {read_layer_rope(config, arch, "full_attention", kinds),
                read_layer_rope(config, arch, "sliding_attention", kinds)};
  set_blocks_by(arch, kinds, [&](const LayerKind& kind) {
    return Writer(arch, traits, kind).block();
  });
  for (const LayerKind& kind : kinds) {
    if (kind.head_dim != kinds[0].head_dim) arch.head_dim = 0;
    if (kind.kv_heads != kinds[0].kv_heads) arch.kv_heads = 0;
    if (kind.ffn != kinds[0].ffn) arch.ffn = 0;
  }
}

}  // namespace llmpress

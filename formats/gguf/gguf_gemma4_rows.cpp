// A row of the table of architectures (gguf_architecture.h): Gemma 4, whose
// layers of full attention have other heads than those with windows, and whose
// last ones read keys of earlier ones.
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kGemma4Block[] = {
    {"per_layer_token_embd", "model.embed_tokens_per_layer"},
    {"per_layer_model_proj", "model.per_layer_model_projection"},
    {"per_layer_proj_norm", "model.per_layer_projection_norm"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm"},
    {"blk.{}.layer_output_scale.weight", "model.layers.{}.layer_scalar",
     Change::kNone, true},
    {"blk.{}.inp_gate", "model.layers.{}.per_layer_input_gate"},
    {"blk.{}.proj", "model.layers.{}.per_layer_projection"},
    {"blk.{}.post_norm", "model.layers.{}.post_per_layer_input_norm"}};
constexpr auto kGemma4 =
    joined(kEnds, kGemma4Block, kNormsAfter, kAttention, kHeadNorms, kMlp);

constexpr GgufKey kGemma4Keys[] = {
    {"context_length", "max_position_embeddings", false, 131072},
    {"embedding_length", "hidden_size", false, 2304},
    {"block_count", "num_hidden_layers", false, 30},
    {"attention.head_count", "num_attention_heads", false, 8},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6},
    {"attention.sliding_window", "sliding_window", false, 512},
    {"attention.shared_kv_layers", "num_kv_shared_layers", false, 0},
    {"embedding_length_per_layer_input", "hidden_size_per_layer_input", false,
     256}};

constexpr std::string_view kFreqs = "rope_freqs.weight";
constexpr std::string_view kPattern = "attention.sliding_window_pattern";
constexpr double kUsualCap = 30;  // llama.cpp's without the key
// The divisor of pairs that do not turn.
constexpr float kStill = 1e30f;

// --- reading

// One for all layers, or each layer's.
std::vector<std::size_t> sizes_by_layer(const GgufReading& in,
                                        std::string_view key,
                                        std::size_t layers) {
  const auto found = in.file.metadata().numbers(in.key(key));
  if (found.size() != 1 && found.size() != layers) {
    unsupported_gguf_key(in, key, "one size, or one for each layer");
  }
  std::vector<std::size_t> sizes;
  for (std::size_t l = 0; l < layers; ++l) {
    const double size = found[found.size() == 1 ? 0 : l];
    if (!(size >= 1 && size <= 1e9)) unsupported_gguf_key(in, key, "sizes");
    sizes.push_back(static_cast<std::size_t>(size));
  }
  return sizes;
}

nlohmann::json ropes_of(const GgufReading& in) {
  const auto number = [&](const char* key, double usual) {
    return in.number(key).value_or(usual);
  };
  std::size_t turning = 0;
  const std::vector<float> divisors = in.vector(kFreqs);
  while (turning < divisors.size() && divisors[turning] == 1) ++turning;
  for (std::size_t j = turning; j < divisors.size(); ++j) {
    if (divisors[j] >= kStill) continue;
    fail(ErrorCode::kUnsupported, "{}: tensor '{}' divides what turns",
         in.file.metadata().origin(), kFreqs);
  }
  const double part =
      static_cast<double>(turning) / static_cast<double>(divisors.size());
  return {{"full_attention",
           {{"rope_type", "proportional"},
            {"partial_rotary_factor", part},
            {"rope_theta", number("rope.freq_base", 1e6)}}},
          {"sliding_attention",
           {{"rope_type", "default"},
            {"rope_theta", number("rope.freq_base_swa", 1e4)}}}};
}

void read_widths(const GgufReading& in, std::size_t layers, JsonFields& out) {
  const auto widths = sizes_by_layer(in, "feed_forward_length", layers);
  const std::size_t shared = in.size("attention.shared_kv_layers").value_or(0);
  const bool wide = widths.back() != widths[0];
  for (std::size_t l = 0; l < layers; ++l) {
    const std::size_t wanted =
        widths[0] * (wide && l + shared >= layers ? 2 : 1);
    if (widths[l] != wanted) {
      unsupported_gguf_key(in, "feed_forward_length",
                           "one size, twice it in layers that share keys");
    }
  }
  out["intermediate_size"] = formatted("{}", widths[0]);
  out["use_double_wide_mlp"] = json_flag(wide);
}

void read_gemma4(const GgufReading& in, JsonFields& out) {
  const std::size_t layers = in.require_size("block_count");
  if (layers == 0) unsupported_gguf_key(in, "block_count", "layers");
  out["layer_types"] =
      read_gguf_layer_types(in, "sliding_attention", "full_attention", 6);
  const auto types = nlohmann::json::parse(out["layer_types"]);
  const auto kv_heads = sizes_by_layer(in, "attention.head_count_kv", layers);
  const std::size_t wide = gguf_head_dim(in);
  nlohmann::json own = nlohmann::json::object();
  std::size_t sliding_heads = kv_heads[0];
  bool values = true;
  for (std::size_t l = 0; l < layers; ++l) {
    if (types[l] == "sliding_attention") {
      sliding_heads = kv_heads[l];
      continue;
    }
    own[formatted("{}", l)] = {{"head_dim", wide},
                               {"num_key_value_heads", kv_heads[l]}};
    values &= in.has(with_number("blk.{}.attn_v.weight", l)) ||
              !in.has(with_number("blk.{}.attn_k.weight", l));
  }
  out["per_layer_config"] = own.dump();
  out["num_key_value_heads"] = formatted("{}", sliding_heads);
  out["head_dim"] =
      formatted("{}", in.size("attention.key_length_swa").value_or(wide));
  out["attention_k_eq_v"] = json_flag(!values);
  out["rope_parameters"] = ropes_of(in).dump();
  read_widths(in, layers, out);
  out["vocab_size_per_layer_input"] = out["vocab_size"];
  const double cap = in.number("final_logit_softcapping").value_or(kUsualCap);
  if (cap > 0) out["final_logit_softcapping"] = json_number(cap);
}

// --- writing

std::vector<bool> windows_of(const GgufWriting& out, std::size_t layers) {
  const auto types = out.config.texts("layer_types");
  std::vector<bool> windows;
  for (std::size_t l = 0; l < layers; ++l) {
    windows.push_back(l < types.size() ? types[l] == "sliding_attention"
                                       : (l + 1) % 6 != 0);
  }
  windows.back() = false;  // whatever is written
  return windows;
}

struct FullHeads {
  std::size_t head_dim = 0, kv_heads = 0;
};

// Of layers without a window.
FullHeads full_heads(const GgufWriting& out, const std::vector<bool>& windows,
                     std::size_t kv_heads) {
  const ConfigReader& config = out.config;
  const auto by_layer = config.object("per_layer_config");
  FullHeads heads{.head_dim = config.size("global_head_dim").value_or(512),
                  .kv_heads = kv_heads};
  if (!by_layer) {
    if (config.flag("attention_k_eq_v").value_or(false)) {
      heads.kv_heads =
          config.size("num_global_key_value_heads").value_or(kv_heads);
    }
    return heads;
  }
  const std::size_t usual = config.size("head_dim").value_or(256);
  for (std::size_t l = 0; l < windows.size(); ++l) {
    const auto own = by_layer->object(std::to_string(l));
    const FullHeads found{
        .head_dim = own ? own->size("head_dim").value_or(usual) : usual,
        .kv_heads = own ? own->size("num_key_value_heads").value_or(kv_heads)
                        : kv_heads};
    const bool other = found.head_dim != usual || found.kv_heads != kv_heads;
    if (windows[l] && other) {
      config.unsupported("per_layer_config",
                         "the usual heads in layers with a window");
    }
    if (!windows[l]) heads = found;
  }
  return heads;
}

void write_ropes(const GgufWriting& out, std::size_t full,
                 std::size_t sliding) {
  const auto both = out.config.object("rope_parameters");
  const auto part = [&](const char* type) {
    const auto own = both ? both->object(type) : std::nullopt;
    if (!own) {
      out.config.invalid("rope_parameters", formatted("an object '{}'", type));
    }
    return *own;
  };
  const ConfigReader wide = part("full_attention");
  const ConfigReader narrow = part("sliding_attention");
  if (wide.text("rope_type").value_or("default") != "proportional" ||
      wide.number("factor").value_or(1) != 1) {
    wide.unsupported("rope_type", "proportional, with a factor of 1");
  }
  if (narrow.text("rope_type").value_or("default") != "default" ||
      narrow.number("partial_rotary_factor").value_or(1) != 1) {
    narrow.unsupported("rope_type", "default, of whole heads");
  }
  out.number("rope.freq_base", wide.number("rope_theta").value_or(1e6));
  out.number("rope.freq_base_swa", narrow.number("rope_theta").value_or(1e4));
  out.size("rope.dimension_count", full);
  out.size("rope.dimension_count_swa", sliding);
  const double turned = wide.number("partial_rotary_factor").value_or(1) *
                        static_cast<double>(full) / 2;
  std::vector<float> divisors(full / 2, kStill);
  for (std::size_t j = 0; j < divisors.size(); ++j) {
    if (static_cast<double>(j + 1) <= turned) divisors[j] = 1;
  }
  out.extra_tensors.emplace_back(kFreqs, divisors);
}

// llama.cpp takes the keys of the last two layers that have some.
void check_shared(const GgufWriting& out, const std::vector<bool>& windows,
                  std::size_t shared) {
  if (shared == 0) return;
  const std::size_t first = windows.size() - std::min(shared, windows.size());
  if (first >= 2 && windows[first - 2] && !windows[first - 1]) return;
  out.config.unsupported("num_kv_shared_layers",
                         "a layer with a window and one without it before "
                         "those that share keys");
}

void write_gemma4(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "enable_moe_block", false);
  require_gguf_activation(out, "hidden_activation", {"gelu_pytorch_tanh"});
  const std::size_t layers = config.size("num_hidden_layers").value_or(30);
  if (layers == 0) config.invalid("num_hidden_layers", "a size above 0");
  const std::size_t kv_heads = config.size("num_key_value_heads").value_or(4);
  const std::size_t sliding = config.size("head_dim").value_or(256);
  const std::vector<bool> windows = windows_of(out, layers);
  const FullHeads full = full_heads(out, windows, kv_heads);
  const std::size_t shared = config.size("num_kv_shared_layers").value_or(0);
  check_shared(out, windows, shared);
  const bool wide = config.flag("use_double_wide_mlp").value_or(false);
  const std::size_t width = config.size("intermediate_size").value_or(9216);
  std::vector<std::uint32_t> keys, widths;
  for (std::size_t l = 0; l < layers; ++l) {
    keys.push_back(
        static_cast<std::uint32_t>(windows[l] ? kv_heads : full.kv_heads));
    const bool doubled = wide && l + shared >= layers;
    widths.push_back(static_cast<std::uint32_t>(width * (doubled ? 2 : 1)));
  }
  const std::string prefix = std::string(out.architecture) + ".";
  out.metadata.set_array(prefix + "attention.head_count_kv", keys);
  out.metadata.set_array(prefix + "feed_forward_length", widths);
  out.metadata.set_array(prefix + std::string(kPattern), windows);
  for (const char* what : {"attention.key_length", "attention.value_length"}) {
    out.size(what, full.head_dim);
    out.size(std::string(what) + "_swa", sliding);
  }
  write_ropes(out, full.head_dim, sliding);
  out.number("final_logit_softcapping",
             config.number("final_logit_softcapping").value_or(0));
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "gemma4",
                     .model_type = "gemma4_text",
                     .tensors = kGemma4,
                     .keys = kGemma4Keys,
                     .read = read_gemma4,
                     .write = write_gemma4,
                     .head_dim = 256,
                     .tied = true,
                     .hf_class = "Gemma4ForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> gemma4_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

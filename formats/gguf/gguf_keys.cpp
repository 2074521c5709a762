#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {
[[noreturn]] void unsupported_gguf_key(const GgufReading& in,
                                       std::string_view key,
                                       std::string_view wanted) {
  fail(ErrorCode::kUnsupported, "{}: metadata '{}': wanted {}",
       in.file.metadata().origin(), in.key(key), wanted);
}

namespace {

// Key and value heads, which may be given layer by layer.
std::size_t kv_heads_of(const GgufReading& in, std::size_t heads) {
  constexpr std::string_view kKey = "attention.head_count_kv";
  const std::vector<double> counts = in.file.metadata().numbers(in.key(kKey));
  if (counts.empty()) return heads;
  if (std::ranges::adjacent_find(counts, std::not_equal_to()) != counts.end() ||
      !(counts[0] >= 1 && counts[0] <= 1e6)) {
    unsupported_gguf_key(in, kKey, "the same number of heads in all layers");
  }
  return static_cast<std::size_t>(counts[0]);
}

std::size_t heads_of(const GgufReading& in) {
  const std::size_t heads = in.require_size("attention.head_count");
  if (heads == 0)
    unsupported_gguf_key(in, "attention.head_count", "at least one");
  return heads;
}

}  // namespace

std::size_t gguf_head_dim(const GgufReading& in) {
  const std::size_t head_dim =
      in.size("attention.key_length")
          .value_or(in.require_size("embedding_length") / heads_of(in));
  if (in.size("attention.value_length").value_or(head_dim) != head_dim) {
    unsupported_gguf_key(in, "attention.value_length", "the key's length");
  }
  return head_dim;
}

double read_partial_gguf_heads(const GgufReading& in, JsonFields& out) {
  const std::size_t head_dim = gguf_head_dim(in);
  out["num_key_value_heads"] = formatted("{}", kv_heads_of(in, heads_of(in)));
  out["head_dim"] = formatted("{}", head_dim);
  const std::size_t turned = in.size("rope.dimension_count").value_or(head_dim);
  const bool part = turned != head_dim;
  if (turned == 0 || turned > head_dim || (part && turned % 2 != 0)) {
    unsupported_gguf_key(in, "rope.dimension_count", "a part of a head");
  }
  return static_cast<double>(turned) / static_cast<double>(head_dim);
}

void read_gguf_heads(const GgufReading& in, JsonFields& out) {
  if (read_partial_gguf_heads(in, out) != 1) {
    unsupported_gguf_key(in, "rope.dimension_count", "whole heads");
  }
}

namespace {

std::size_t require(const ConfigReader& config, std::string_view key) {
  const auto size = config.size(key);
  if (!size || *size == 0) config.invalid(key, "a size above 0");
  return *size;
}

GgufHeads heads_of(const GgufWriting& out) {
  GgufHeads h{.heads = require(out.config, "num_attention_heads"),
              .hidden = require(out.config, "hidden_size")};
  h.kv_heads = out.config.size("num_key_value_heads").value_or(h.heads);
  const auto usual = gguf_architecture_for(out.config).head_dim;
  h.head_dim =
      out.config.size("head_dim").value_or(usual.value_or(h.hidden / h.heads));
  return h;
}

}  // namespace

namespace {

// Of the rotary embedding, at whichever level it stands.
double partial_factor(const GgufWriting& out, double usual) {
  constexpr std::string_view kKey = "partial_rotary_factor";
  for (const char* level : {"rope_parameters", "rope_scaling"}) {
    const auto rope = out.config.object(level);
    const auto inner = rope ? rope->number(kKey) : std::nullopt;
    if (inner) return *inner;
  }
  return out.config.number(kKey).value_or(usual);
}

GgufHeads write_any_heads(const GgufWriting& out) {
  const GgufHeads h = heads_of(out);
  out.size("attention.head_count_kv", h.kv_heads);
  out.size("attention.key_length", h.head_dim);
  out.size("attention.value_length", h.head_dim);
  return h;
}

}  // namespace

GgufHeads write_gguf_heads(const GgufWriting& out) {
  if (partial_factor(out, 1) != 1) {
    out.config.unsupported("partial_rotary_factor", "1");
  }
  return write_any_heads(out);
}

void write_partial_gguf_rope(const GgufWriting& out, double usual) {
  const GgufHeads h = write_any_heads(out);
  const auto turned = static_cast<std::size_t>(partial_factor(out, usual) *
                                               static_cast<double>(h.head_dim));
  out.size("rope.dimension_count", turned);
  write_gguf_rope(out, turned, gguf_architecture_for(out.config).rope_theta);
}

void write_gguf_whole_rope(const GgufWriting& out) {
  const GgufHeads h = write_gguf_heads(out);
  out.size("rope.dimension_count", h.head_dim);
  write_gguf_rope(out, h.head_dim,
                  gguf_architecture_for(out.config).rope_theta);
}

namespace {

// Windows that the architecture has no key for: those that the context never
// fills are none.
}  // namespace

void refuse_gguf_window(const GgufWriting& out, std::string_view usual_flag) {
  const ConfigReader& config = out.config;
  const bool off =
      !usual_flag.empty() && !config.flag(usual_flag).value_or(false);
  auto window = config.size("sliding_window");
  // The default of Mistral's class.
  if (!window && !config.is_null("sliding_window") &&
      config.text("model_type") == "mistral") {
    window = 4096;
  }
  const auto context = config.size("max_position_embeddings");
  if (off || !window || (context && *window >= *context)) return;
  config.unsupported("sliding_window",
                     "null: llama.cpp has no window in this architecture");
}

namespace {

// Of Gemma 2 and 3 llama.cpp takes 1 / sqrt(head_dim), but for the 27 billion
// ones, which it knows by their number of layers, 1 / sqrt(hidden / heads).
double gemma_scalar(std::size_t layers, std::size_t large, std::size_t head_dim,
                    std::size_t hidden, std::size_t heads) {
  return static_cast<double>(layers == large ? hidden / heads : head_dim);
}

void read_scalar(const GgufReading& in, std::size_t large, JsonFields& out) {
  out["query_pre_attn_scalar"] = json_number(
      gemma_scalar(in.require_size("block_count"), large, gguf_head_dim(in),
                   in.require_size("embedding_length"), heads_of(in)));
}

void check_scalar(const GgufWriting& out, std::size_t large) {
  const GgufHeads h = heads_of(out);
  const double own = out.config.number("query_pre_attn_scalar").value_or(256);
  const double theirs = gemma_scalar(require(out.config, "num_hidden_layers"),
                                     large, h.head_dim, h.hidden, h.heads);
  if (own != theirs) {
    out.config.unsupported("query_pre_attn_scalar",
                           formatted("{}, which llama.cpp takes", theirs));
  }
}

// Every `period`th layer sees all.
}  // namespace

std::string gguf_layer_types(std::size_t layers, std::size_t period) {
  nlohmann::json types = nlohmann::json::array();
  for (std::size_t l = 1; l <= layers; ++l) {
    types.push_back(l % period == 0 ? "full_attention" : "sliding_attention");
  }
  return types.dump();
}

void check_gguf_layer_types(const GgufWriting& out, std::size_t period) {
  const std::vector<std::string> own = out.config.texts("layer_types");
  for (std::size_t l = 1; l <= own.size(); ++l) {
    if (own[l - 1] ==
        (l % period == 0 ? "full_attention" : "sliding_attention")) {
      continue;
    }
    out.config.unsupported(
        "layer_types",
        formatted("full_attention in every layer {} alone", period));
  }
}

namespace {

// What llama.cpp computes without being told.
}  // namespace

void require_gguf_activation(const GgufWriting& out, std::string_view key,
                             std::initializer_list<std::string_view> known) {
  const auto own = out.config.text(key);
  if (own && std::ranges::find(known, *own) == known.end()) {
    out.config.unsupported(key, std::string(*known.begin()));
  }
}

void refuse_gguf_flag(const GgufWriting& out, std::string_view key,
                      bool usual) {
  if (out.config.flag(key).value_or(usual) == usual) return;
  out.config.unsupported(key, usual ? "true: llama.cpp has no other"
                                    : "false: llama.cpp has no other");
}

void read_gguf_attention_bias(const GgufReading& in, JsonFields& out) {
  out["attention_bias"] = in.has("blk.0.attn_q.bias") ? "true" : "false";
}

std::string json_number(double value) { return nlohmann::json(value).dump(); }

std::string json_numbers(std::span<const float> values) {
  nlohmann::json list = nlohmann::json::array();
  for (const float v : values) list.push_back(static_cast<double>(v));
  return list.dump();
}

std::string json_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false,
                                   nlohmann::json::error_handler_t::replace);
}

void read_llama(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  if (out["model_type"] != "\"llama\"") {
    out["sliding_window"] = "null";
    return;
  }
  read_gguf_attention_bias(in, out);
  out["mlp_bias"] = in.has("blk.0.ffn_up.bias") ? "true" : "false";
}

void write_llama(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"silu", "swish"});
  write_gguf_whole_rope(out);
  refuse_gguf_window(out);
  if (const auto experts = out.config.size("num_local_experts")) {
    out.size("expert_count", *experts);
  }
}

void read_qwen(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  if (in.architecture != "qwen2") read_gguf_attention_bias(in, out);
}

void write_qwen(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"silu", "swish"});
  if (out.architecture != "qwen2")
    refuse_gguf_flag(out, "attention_bias", false);
  write_gguf_whole_rope(out);
  refuse_gguf_window(out, "use_sliding_window");
}

void read_qwen3_moe(const GgufReading& in, JsonFields& out) {
  read_qwen(in, out);
  out["norm_topk_prob"] = "true";
  out["decoder_sparse_step"] = "1";
}

void write_qwen3_moe(const GgufWriting& out) {
  write_qwen(out);
  if (!out.config.flag("norm_topk_prob").value_or(false)) {
    out.config.unsupported("norm_topk_prob", "true, which llama.cpp takes");
  }
  if (out.config.size("decoder_sparse_step").value_or(1) != 1) {
    out.config.unsupported("decoder_sparse_step", "experts in every layer");
  }
  if (!out.config.sizes("mlp_only_layers").empty()) {
    out.config.unsupported("mlp_only_layers", "experts in every layer");
  }
  // transformers 5 calls them so.
  const auto experts = out.config.size("num_local_experts");
  if (experts && !out.config.has("num_experts")) {
    out.size("expert_count", *experts);
  }
}

void read_gemma(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["hidden_act"] = "\"gelu_pytorch_tanh\"";
}

void write_gemma(const GgufWriting& out) {
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_activation(out, "hidden_act", {"gelu_pytorch_tanh", "gelu"});
  write_gguf_whole_rope(out);
}

void read_gemma2(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_scalar(in, 46, out);
  out["layer_types"] = gguf_layer_types(in.require_size("block_count"), 2);
}

void write_gemma2(const GgufWriting& out) {
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_activation(out, "hidden_activation", {"gelu_pytorch_tanh"});
  write_gguf_whole_rope(out);
  check_scalar(out, 46);
  check_gguf_layer_types(out, 2);
}

void read_gemma3(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_scalar(in, 62, out);
  out["layer_types"] = gguf_layer_types(in.require_size("block_count"), 6);
  out["rope_local_base_freq"] =
      json_number(in.number("rope.freq_base_swa").value_or(10000));
  if (const auto cap = in.number("final_logit_softcapping"); cap && *cap > 0) {
    out["final_logit_softcapping"] = json_number(*cap);
  }
}

void write_gemma3(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_activation(out, "hidden_activation", {"gelu_pytorch_tanh"});
  check_scalar(out, 62);
  check_gguf_layer_types(out, 6);
  if (config.size("sliding_window_pattern").value_or(6) != 6) {
    config.unsupported("sliding_window_pattern", "6, which llama.cpp takes");
  }
  const GgufHeads h = write_gguf_heads(out);
  out.size("rope.dimension_count", h.head_dim);
  // transformers 5 writes both embeddings under rope_parameters.
  const auto both = config.object("rope_parameters");
  const auto part = [&](const char* type, const char* key, double usual) {
    const auto own = both ? both->object(type) : std::nullopt;
    const auto inner = own ? own->number("rope_theta") : std::nullopt;
    return inner ? *inner : config.number(key).value_or(usual);
  };
  out.number("rope.freq_base", part("full_attention", "rope_theta", 1e6));
  out.number("rope.freq_base_swa",
             part("sliding_attention", "rope_local_base_freq", 1e4));
  const auto full = both ? both->object("full_attention") : std::nullopt;
  const auto scaling = config.object("rope_scaling");
  const ConfigReader* const rope = scaling ? &*scaling
                                   : full  ? &*full
                                           : nullptr;
  const std::string type =
      rope == nullptr ? "default" : rope->text("rope_type").value_or("default");
  if (type == "linear") {
    out.metadata.set("gemma3.rope.scaling.type", std::string("linear"));
    out.number("rope.scaling.factor", rope->number("factor").value_or(1));
  } else if (type != "default") {
    rope->unsupported("rope_type", "default or linear");
  }
  if (const auto cap = config.number("final_logit_softcapping")) {
    out.number("final_logit_softcapping", *cap);
  }
}

void read_phi3(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  // The class has no head_dim.
  out.erase("head_dim");
  read_gguf_long_rope(in, out);
}

void write_phi3(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"silu", "swish"});
  const GgufHeads h = write_gguf_heads(out);
  refuse_gguf_window(out);
  write_gguf_long_rope(out, h.head_dim);
}

void read_gpt2(const GgufReading& in, JsonFields& out) {
  out["n_inner"] = formatted("{}", in.require_size("feed_forward_length"));
  out["activation_function"] = "\"gelu_new\"";
}

void write_gpt2(const GgufWriting& out) {
  const std::size_t hidden = out.config.size("n_embd").value_or(768);
  const auto ffn = out.config.size("n_inner");
  refuse_gguf_flag(out, "scale_attn_weights", true);
  refuse_gguf_flag(out, "scale_attn_by_inverse_layer_idx", false);
  require_gguf_activation(out, "activation_function",
                          {"gelu_new", "gelu_pytorch_tanh", "gelu_fast"});
  out.size("feed_forward_length", ffn.value_or(4 * hidden));
}

}  // namespace llmpress

#include "formats/gguf/gguf_key_parts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"

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

}  // namespace

std::size_t gguf_heads(const GgufReading& in) {
  const std::size_t heads = in.require_size("attention.head_count");
  if (heads == 0)
    unsupported_gguf_key(in, "attention.head_count", "at least one");
  return heads;
}

std::size_t gguf_head_dim(const GgufReading& in) {
  const std::size_t head_dim =
      in.size("attention.key_length")
          .value_or(in.require_size("embedding_length") / gguf_heads(in));
  if (in.size("attention.value_length").value_or(head_dim) != head_dim) {
    unsupported_gguf_key(in, "attention.value_length", "the key's length");
  }
  return head_dim;
}

double read_partial_gguf_heads(const GgufReading& in, JsonFields& out) {
  const std::size_t head_dim = gguf_head_dim(in);
  out["num_key_value_heads"] = formatted("{}", kv_heads_of(in, gguf_heads(in)));
  out["head_dim"] = formatted("{}", head_dim);
  const std::size_t turned = in.size("rope.dimension_count").value_or(head_dim);
  const bool part = turned != head_dim;
  if (turned == 0 || turned > head_dim || (part && turned % 2 != 0)) {
    unsupported_gguf_key(in, "rope.dimension_count", "a part of a head");
  }
  return static_cast<double>(turned) / static_cast<double>(head_dim);
}

void read_partial_gguf_rope(const GgufReading& in, JsonFields& out) {
  const double part = read_partial_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["partial_rotary_factor"] = json_number(part);
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

}  // namespace

GgufHeads gguf_heads(const GgufWriting& out) {
  GgufHeads h{.heads = require(out.config, "num_attention_heads"),
              .hidden = require(out.config, "hidden_size")};
  h.kv_heads = out.config.size("num_key_value_heads").value_or(h.heads);
  const auto usual = gguf_architecture_for(out.config).head_dim;
  h.head_dim =
      out.config.size("head_dim").value_or(usual.value_or(h.hidden / h.heads));
  return h;
}

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
  const GgufHeads h = gguf_heads(out);
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

std::string read_gguf_layer_types(const GgufReading& in,
                                  std::string_view windowed,
                                  std::string_view other, std::size_t period) {
  constexpr std::string_view kKey = "attention.sliding_window_pattern";
  const std::size_t layers = in.require_size("block_count");
  std::vector<double> pattern = in.file.metadata().numbers(in.key(kKey));
  if (pattern.size() == 1 && layers > 1) {
    if (!(pattern[0] >= 1 && pattern[0] <= 1e6)) {
      unsupported_gguf_key(in, kKey, "a period or an entry for each layer");
    }
    period = static_cast<std::size_t>(pattern[0]);
    pattern.clear();
  }
  if (!pattern.empty() && pattern.size() < layers) {
    unsupported_gguf_key(in, kKey, "a period or an entry for each layer");
  }
  nlohmann::json types = nlohmann::json::array();
  for (std::size_t l = 0; l < layers; ++l) {
    const bool first =
        pattern.empty() ? (l + 1) % period != 0 : pattern[l] != 0;
    types.push_back(std::string(first ? windowed : other));
  }
  return types.dump();
}

std::string read_gguf_recurrent_layers(const GgufReading& in,
                                       std::size_t period) {
  const std::size_t layers = in.require_size("block_count");
  const std::size_t interval =
      in.size("full_attention_interval").value_or(period);
  const auto recurrent =
      in.file.metadata().numbers(in.key("attention.recurrent_layers"));
  if (interval == 0 || (!recurrent.empty() && recurrent.size() < layers)) {
    unsupported_gguf_key(in, "attention.recurrent_layers",
                         "an entry for each layer");
  }
  nlohmann::json types = nlohmann::json::array();
  for (std::size_t l = 0; l < layers; ++l) {
    const bool linear =
        recurrent.empty() ? (l + 1) % interval != 0 : recurrent[l] != 0;
    types.push_back(linear ? "linear_attention" : "full_attention");
  }
  return types.dump();
}

void write_gguf_layer_types(const GgufWriting& out, std::string_view windowed,
                            std::size_t period) {
  const std::vector<std::string> types = out.config.texts("layer_types");
  const std::size_t layers =
      out.config.size("num_hidden_layers").value_or(types.size());
  std::vector<bool> pattern;
  for (std::size_t l = 0; l < layers; ++l) {
    pattern.push_back(l < types.size() ? types[l] == windowed
                                       : (l + 1) % period != 0);
  }
  out.metadata.set_array(
      std::string(out.architecture) + ".attention.sliding_window_pattern",
      pattern);
}

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

void require_gguf_tied(const GgufWriting& out, bool wanted) {
  if (out.config.flag("tie_word_embeddings").value_or(wanted) == wanted) return;
  out.config.unsupported("tie_word_embeddings",
                         wanted
                             ? "true: llama.cpp has no head of its own here"
                             : "false: llama.cpp wants a head of its own here");
}

void require_gguf_number(const GgufWriting& out, std::string_view key,
                         double wanted) {
  if (out.config.number(key).value_or(wanted) == wanted) return;
  out.config.unsupported(key, formatted("{}, which llama.cpp takes", wanted));
}

void require_gguf_square_heads(const GgufWriting& out) {
  const GgufHeads h = gguf_heads(out);
  if (h.heads * h.head_dim == h.hidden) return;
  out.config.unsupported("head_dim",
                         "hidden_size / num_attention_heads: llama.cpp has no "
                         "other in this architecture");
}

void refuse_gguf_rope_scaling(const GgufWriting& out) {
  for (const char* level : {"rope_parameters", "rope_scaling"}) {
    const auto rope = out.config.object(level);
    if (!rope) continue;
    const std::string type =
        rope->text("rope_type")
            .value_or(rope->text("type").value_or("default"));
    if (type != "default") rope->unsupported("rope_type", "default");
  }
}

void read_gguf_attention_bias(const GgufReading& in, JsonFields& out) {
  out["attention_bias"] = in.has("blk.0.attn_q.bias") ? "true" : "false";
}

std::string json_flag(bool flag) { return flag ? "true" : "false"; }

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

}  // namespace llmpress

// What metadata and config.json say of the architectures of Gemma.
#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {
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
                   in.require_size("embedding_length"), gguf_heads(in)));
}

void check_scalar(const GgufWriting& out, std::size_t large) {
  const GgufHeads h = gguf_heads(out);
  const double own = out.config.number("query_pre_attn_scalar").value_or(256);
  const double theirs =
      gemma_scalar(out.config.size("num_hidden_layers").value_or(0), large,
                   h.head_dim, h.hidden, h.heads);
  if (own != theirs) {
    out.config.unsupported("query_pre_attn_scalar",
                           formatted("{}, which llama.cpp takes", theirs));
  }
}

}  // namespace

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
  // Without the key llama.cpp takes the usual cap: none cannot be said.
  for (const char* cap :
       {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (out.config.is_null(cap)) {
      out.config.unsupported(cap, "a number, as llama.cpp always caps");
    }
  }
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

}  // namespace llmpress

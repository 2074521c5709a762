#include "formats/gguf/gguf_keys.h"

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {

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

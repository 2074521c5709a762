// What metadata and config.json say of the architectures of
// gguf_wider_architectures.cpp.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_key_parts.h"

namespace llmpress {
namespace {}  // namespace

void read_olmo2(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out.erase("head_dim");
  read_gguf_attention_bias(in, out);
}

void write_olmo2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_tied(out, false);
  write_gguf_whole_rope(out);
}

void read_granite(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  out.erase("head_dim");
  out["mlp_bias"] = json_flag(in.has("blk.0.ffn_up.bias"));
}

void write_granite(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  write_gguf_whole_rope(out);
}

void read_stablelm(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  out.erase("head_dim");
  out["use_qkv_bias"] = json_flag(in.has("blk.0.attn_q.bias"));
  out["use_parallel_residual"] = json_flag(!in.has("blk.0.ffn_norm.weight"));
}

void write_stablelm(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "qk_layernorm", false);
  require_gguf_tied(out, false);
  out.metadata.set("stablelm.use_parallel_residual",
                   out.config.flag("use_parallel_residual").value_or(false));
  write_partial_gguf_rope(out, 0.25);
}

void read_starcoder2(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out.erase("head_dim");
  out["use_bias"] = "true";
  out["sliding_window"] = "null";
  out["hidden_act"] = "\"gelu_pytorch_tanh\"";
}

void write_starcoder2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"gelu_pytorch_tanh"});
  refuse_gguf_flag(out, "use_bias", true);
  write_gguf_whole_rope(out);
  refuse_gguf_window(out);
}

void read_smollm3(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  out.erase("head_dim");
  out["no_rope_layer_interval"] = "4";
}

void write_smollm3(const GgufWriting& out) {
  constexpr std::size_t kStep = 4;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "mlp_bias", false);
  const std::vector<std::size_t> turns = out.config.sizes("no_rope_layers");
  for (std::size_t l = 0; l < turns.size(); ++l) {
    if ((turns[l] != 0) == ((l + 1) % kStep != 0)) continue;
    out.config.unsupported(
        "no_rope_layers", "0 in every fourth layer alone, as llama.cpp has it");
  }
  if (turns.empty()) {
    require_gguf_number(out, "no_rope_layer_interval", kStep);
  }
  write_gguf_whole_rope(out);
  refuse_gguf_window(out, "use_sliding_window");
}

void read_glm4(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
}

void write_glm4(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  write_partial_gguf_rope(out, 0.5);
}

void read_cohere2(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["layer_types"] = gguf_layer_types(in.require_size("block_count"), 4);
  out["tie_word_embeddings"] = "true";
}

void write_cohere2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_tied(out, true);
  require_gguf_number(out, "sliding_window_pattern", 4);
  check_gguf_layer_types(out, 4);
  write_gguf_whole_rope(out);
}

void read_phi2(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  out.erase("head_dim");
}

void write_phi2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"gelu_new", "gelu_pytorch_tanh"});
  refuse_gguf_flag(out, "qk_layernorm", false);
  require_gguf_tied(out, false);
  write_partial_gguf_rope(out, 0.5);
}

void read_qwen2_moe(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out.erase("head_dim");
  out["norm_topk_prob"] = "false";
  out["decoder_sparse_step"] = "1";
}

void write_qwen2_moe(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "norm_topk_prob", false);
  refuse_gguf_flag(out, "qkv_bias", true);
  require_gguf_tied(out, false);
  require_gguf_number(out, "decoder_sparse_step", 1);
  if (!out.config.sizes("mlp_only_layers").empty()) {
    out.config.unsupported("mlp_only_layers", "experts in every layer");
  }
  write_gguf_whole_rope(out);
  refuse_gguf_window(out, "use_sliding_window");
}

void read_gpt_oss(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  // llama.cpp rounds the corners of YaRN's ramp, the model does not; nothing in
  // the file says which.
  std::string& rope = out["rope_scaling"];
  if (rope.empty()) {
    rope = R"({"rope_type": "default"})";
  } else {
    auto json = nlohmann::json::parse(rope);
    json["truncate"] = false;
    rope = json.dump();
  }
}

void write_gpt_oss(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", true);
  require_gguf_tied(out, false);
  require_gguf_number(out, "swiglu_limit", 7.0);
  require_gguf_number(out, "swiglu_alpha", 1.702);
  const std::vector<std::string> types = out.config.texts("layer_types");
  for (std::size_t l = 0; l < types.size(); ++l) {
    if (types[l] == (l % 2 == 0 ? "sliding_attention" : "full_attention")) {
      continue;
    }
    out.config.unsupported("layer_types",
                           "sliding_attention in every other "
                           "layer from the first on");
  }
  write_gguf_whole_rope(out);
}

}  // namespace llmpress

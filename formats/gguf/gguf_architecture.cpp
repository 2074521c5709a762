#include "formats/gguf/gguf_architecture.h"

#include <algorithm>
#include <array>
#include <set>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_keys.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr GgufKey kGemma2Keys[] = {
    {"context_length", "max_position_embeddings", false, 8192},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6},
    {"attn_logit_softcapping", "attn_logit_softcapping", true, 50},
    {"final_logit_softcapping", "final_logit_softcapping", true, 30},
    {"attention.sliding_window", "sliding_window", false, 4096},
};
constexpr GgufKey kGemma3Keys[] = {
    {"context_length", "max_position_embeddings", false, 131072},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6},
    {"attention.sliding_window", "sliding_window", false, 4096},
};
constexpr GgufKey kGpt2Keys[] = {
    {"context_length", "n_positions", false, 1024},
    {"embedding_length", "n_embd", false, 768},
    {"block_count", "n_layer", false, 12},
    {"attention.head_count", "n_head", false, 12},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5},
};
constexpr GgufKey kMixtralKeys[] = {
    {"context_length", "max_position_embeddings", false, 131072},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-5},
    {"expert_count", "num_local_experts", false, 8},
    {"expert_used_count", "num_experts_per_tok", false, 2},
};
constexpr GgufKey kQwen3MoeKeys[] = {
    {"context_length", "max_position_embeddings", false, 32768},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size", false, 6144},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6},
    {"expert_count", "num_experts", false, 128},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 768},
};

constexpr Names kMixtralExperts[] = {
    {"blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate"},
    {"blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w1"},
    {"blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w2"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w3"}};
constexpr Names kGemmaEnds[] = {{"token_embd", "model.embed_tokens"},
                                {"output_norm", "model.norm", Change::kPlusOne},
                                {"output", "lm_head"}};
constexpr Names kGemmaNorms[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm", Change::kPlusOne},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm",
     Change::kPlusOne}};
constexpr Names kGemma2Norms[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm", Change::kPlusOne},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm",
     Change::kPlusOne},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_feedforward_layernorm",
     Change::kPlusOne},
    {"blk.{}.post_ffw_norm", "model.layers.{}.post_feedforward_layernorm",
     Change::kPlusOne}};
constexpr Names kGemmaHeadNorms[] = {
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm",
     Change::kPlusOne},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm",
     Change::kPlusOne}};

constexpr Names kPhi3Block[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.attn_qkv", "model.layers.{}.self_attn.qkv_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"}};

constexpr Names kGpt2[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.ln_1"},
    {"blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn", Change::kTransposed},
    {"blk.{}.attn_output", "transformer.h.{}.attn.c_proj", Change::kTransposed},
    {"blk.{}.ffn_norm", "transformer.h.{}.ln_2"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc", Change::kTransposed},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj", Change::kTransposed}};

constexpr auto kLlamaKeys = joined(kSizes, kRms);

constexpr auto kLlama = joined(kEnds, kNorms, kTurnedAttention, kMlp);
constexpr auto kMixtral =
    joined(kEnds, kNorms, kTurnedAttention, kMixtralExperts);
constexpr auto kQwen2 = joined(kEnds, kNorms, kAttention, kMlp);
constexpr auto kQwen3 = joined(kEnds, kNorms, kAttention, kHeadNorms, kMlp);
constexpr auto kQwen3Moe =
    joined(kEnds, kNorms, kAttention, kHeadNorms, kRouter, kExperts);
constexpr auto kGemma = joined(kGemmaEnds, kGemmaNorms, kAttention, kMlp);
constexpr auto kGemma2 = joined(kGemmaEnds, kGemma2Norms, kAttention, kMlp);
constexpr auto kGemma3 =
    joined(kGemmaEnds, kGemma2Norms, kAttention, kGemmaHeadNorms, kMlp);
constexpr auto kPhi3 = joined(kEnds, kPhi3Block);

bool has_experts(const GgufReading& in) {
  return in.size("expert_count").value_or(0) > 0;
}

constexpr std::array kArchitectures{
    // "llama" is the name of Mixtral too, whose row comes first.
    GgufArchitecture{.name = "llama",
                     .model_type = "mixtral",
                     .tensors = kMixtral,
                     .keys = kMixtralKeys,
                     .read = read_llama,
                     .write = write_llama,
                     .fits = has_experts,
                     .rope_theta = 1e6,
                     .hf_class = "MixtralForCausalLM"},
    GgufArchitecture{.name = "llama",
                     .model_type = "llama",
                     .tensors = kLlama,
                     .keys = kLlamaKeys,
                     .read = read_llama,
                     .write = write_llama,
                     .hf_class = "LlamaForCausalLM"},
    GgufArchitecture{.name = "llama",
                     .model_type = "mistral",
                     .tensors = kLlama,
                     .keys = kLlamaKeys,
                     .read = read_llama,
                     .write = write_llama,
                     .hf_class = "MistralForCausalLM"},
    GgufArchitecture{.name = "qwen2",
                     .model_type = "qwen2",
                     .tensors = kQwen2,
                     .keys = kLlamaKeys,
                     .read = read_qwen,
                     .write = write_qwen,
                     .hf_class = "Qwen2ForCausalLM"},
    GgufArchitecture{.name = "qwen3",
                     .model_type = "qwen3",
                     .tensors = kQwen3,
                     .keys = kLlamaKeys,
                     .read = read_qwen,
                     .write = write_qwen,
                     .head_dim = 128,
                     .hf_class = "Qwen3ForCausalLM"},
    GgufArchitecture{.name = "qwen3moe",
                     .model_type = "qwen3_moe",
                     .tensors = kQwen3Moe,
                     .keys = kQwen3MoeKeys,
                     .read = read_qwen3_moe,
                     .write = write_qwen3_moe,
                     .hf_class = "Qwen3MoeForCausalLM"},
    GgufArchitecture{.name = "gemma",
                     .model_type = "gemma",
                     .tensors = kGemma,
                     .keys = kLlamaKeys,
                     .read = read_gemma,
                     .write = write_gemma,
                     .head_dim = 256,
                     .tied = true,
                     .hf_class = "GemmaForCausalLM"},
    GgufArchitecture{.name = "gemma2",
                     .model_type = "gemma2",
                     .tensors = kGemma2,
                     .keys = kGemma2Keys,
                     .read = read_gemma2,
                     .write = write_gemma2,
                     .head_dim = 256,
                     .tied = true,
                     .hf_class = "Gemma2ForCausalLM"},
    GgufArchitecture{.name = "gemma3",
                     .model_type = "gemma3_text",
                     .tensors = kGemma3,
                     .keys = kGemma3Keys,
                     .read = read_gemma3,
                     .write = write_gemma3,
                     .head_dim = 256,
                     .rope_theta = 1e6,
                     .tied = true,
                     .hf_class = "Gemma3ForCausalLM"},
    GgufArchitecture{.name = "phi3",
                     .model_type = "phi3",
                     .tensors = kPhi3,
                     .keys = kLlamaKeys,
                     .read = read_phi3,
                     .write = write_phi3,
                     .hf_class = "Phi3ForCausalLM"},
    GgufArchitecture{.name = "gpt2",
                     .model_type = "gpt2",
                     .tensors = kGpt2,
                     .keys = kGpt2Keys,
                     .read = read_gpt2,
                     .write = write_gpt2,
                     .tied = true,
                     .hf_class = "GPT2LMHeadModel"},
};

// Models that llama.cpp has no graph for, or another one.
constexpr std::string_view kWithout[] = {
    "codegen",         "cwm",       "flex_olmo", "gpt_neo",   "gptj",
    "helium",          "ministral", "opt",       "persimmon", "phimoe",
    "recurrent_gemma", "rwkv",      "vaultgemma"};

std::vector<GgufArchitecture> all_architectures() {
  std::vector<GgufArchitecture> all(kArchitectures.begin(),
                                    kArchitectures.end());
  // Rows that look for a mark of their own stand before those that take any.
  for (const auto rows :
       {hybrid_gguf_architectures(), dense_gguf_architectures(),
        newer_dense_gguf_architectures(), wider_gguf_architectures(),
        fused_gguf_architectures(), expert_gguf_architectures(),
        latent_gguf_architectures(), sigmoid_gguf_architectures(),
        delta_gguf_architectures(), recurrent_gguf_architectures(),
        single_gguf_architectures(), parallel_gguf_architectures(),
        vision_gguf_architectures(), gemma4_gguf_architectures(),
        lightning_gguf_architectures()}) {
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

std::string list_names() {
  std::set<std::string_view> names;
  for (const GgufArchitecture& row : gguf_architectures()) {
    names.insert(row.name);
  }
  std::string list;
  for (const std::string_view name : names) {
    list += (list.empty() ? "" : ", ") + std::string(name);
  }
  return list;
}

}  // namespace

std::span<const GgufArchitecture> gguf_architectures() {
  static const std::vector<GgufArchitecture> all = all_architectures();
  return all;
}

const GgufArchitecture& gguf_architecture_of(const GgufReading& reading) {
  for (const GgufArchitecture& row : gguf_architectures()) {
    if (row.name != reading.architecture) continue;
    if (row.fits != nullptr && !row.fits(reading)) continue;
    return row;
  }
  fail(ErrorCode::kUnsupported,
       "{}: architecture '{}' is not read; this version knows {}",
       reading.file.metadata().origin(), reading.architecture, list_names());
}

const GgufArchitecture& gguf_architecture_for(const ConfigReader& config) {
  const std::string type = config.text("model_type").value_or("");
  if (std::ranges::find(kWithout, type) != std::end(kWithout)) {
    fail(ErrorCode::kUnsupported,
         "{}: models of type '{}' cannot be written as GGUF: llama.cpp has no "
         "architecture that computes what they do",
         config.origin(), type);
  }
  std::string known;
  for (const GgufArchitecture& row : gguf_architectures()) {
    const bool fits = row.written == nullptr || row.written(config);
    if (row.model_type == type && fits) return row;
    if (row.written != nullptr) continue;
    known += (known.empty() ? "" : ", ") + std::string(row.model_type);
  }
  fail(ErrorCode::kUnsupported,
       "{}: models of type '{}' are not written as GGUF; this version knows {}",
       config.origin(), type, known);
}

std::string with_number(std::string_view pattern, std::size_t number) {
  std::string text(pattern);
  if (const std::size_t at = text.find("{}"); at != std::string::npos) {
    text.replace(at, 2, formatted("{}", number));
  }
  return text;
}

}  // namespace llmpress

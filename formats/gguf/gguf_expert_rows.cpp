// Rows of the table of architectures (gguf_architecture.h): further mixtures of
// experts.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

// --- OLMoE

constexpr auto kOlmoe =
    joined(kEnds, kNorms, kAttention, kHeadNorms, kRouter, kExperts);
constexpr GgufKey kOlmoeSizes[] = {
    {"expert_count", "num_experts", false, 64},
    {"expert_used_count", "num_experts_per_tok", false, 8}};
constexpr auto kOlmoeKeys = joined(kSizes, kRmsOfOlmo, kOlmoeSizes);

void read_olmoe(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  out.erase("head_dim");
  out["norm_topk_prob"] = "false";
}

void write_olmoe(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "norm_topk_prob", false);
  require_gguf_tied(out, false);
  require_gguf_square_heads(out);
  const GgufHeads h = gguf_heads(out);
  if (h.kv_heads != h.heads) {
    out.config.unsupported("num_key_value_heads", "num_attention_heads");
  }
  if (out.config.has("clip_qkv")) {
    out.config.unsupported("clip_qkv", "null: llama.cpp does not clip here");
  }
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
}

// --- Llama 4

constexpr Names kLlama4Mlp[] = {
    {"blk.{}.ffn_gate", "model.layers.{}.feed_forward.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.feed_forward.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.feed_forward.down_proj"},
    {"blk.{}.ffn_gate_inp", "model.layers.{}.feed_forward.router"},
    {"blk.{}.ffn_gate_exps",
     "model.layers.{}.feed_forward.experts.{e}.gate_proj"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.feed_forward.experts.{e}.up_proj"},
    {"blk.{}.ffn_down_exps",
     "model.layers.{}.feed_forward.experts.{e}.down_proj"},
    {"blk.{}.ffn_gate_shexp",
     "model.layers.{}.feed_forward.shared_expert.gate_proj"},
    {"blk.{}.ffn_up_shexp",
     "model.layers.{}.feed_forward.shared_expert.up_proj"},
    {"blk.{}.ffn_down_shexp",
     "model.layers.{}.feed_forward.shared_expert.down_proj"}};
constexpr auto kLlama4 = joined(kEnds, kNorms, kAttention, kLlama4Mlp);
constexpr GgufKey kLlama4Keys[] = {
    {"context_length", "max_position_embeddings", false, 131072},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-5},
    {"feed_forward_length", "intermediate_size_mlp", false, 16384},
    {"expert_feed_forward_length", "intermediate_size", false, 8192},
    {"expert_count", "num_local_experts", false, 16},
    {"expert_used_count", "num_experts_per_tok", false, 1},
    {"interleave_moe_layer_step", "interleave_moe_layer_step", false, 1}};
// What llama.cpp takes for granted.
constexpr std::size_t kLlama4Chunk = 8192, kLlama4Period = 4;
constexpr std::size_t kExpertsWithoutNorms = 128;

void read_llama4(const GgufReading& in, JsonFields& out) {
  constexpr std::string_view kWindow = "attention.sliding_window";
  if (in.size(kWindow).value_or(kLlama4Chunk) == 0) {
    unsupported_gguf_key(in, kWindow, "chunks");
  }
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["attention_chunk_size"] = formatted("{}", kLlama4Chunk);
  out["layer_types"] = read_gguf_layer_types(in, "chunked_attention",
                                             "full_attention", kLlama4Period);
  const std::size_t layers = in.require_size("block_count");
  nlohmann::json turns = nlohmann::json::array();
  for (std::size_t l = 1; l <= layers; ++l) {
    turns.push_back(l % kLlama4Period == 0 ? 0 : 1);
  }
  out["no_rope_layers"] = turns.dump();
  out["attn_temperature_tuning"] = "true";
  out["floor_scale"] = formatted("{}", kLlama4Chunk);
  out["attn_scale"] = "0.1";
  out["use_qk_norm"] =
      json_flag(in.require_size("expert_count") != kExpertsWithoutNorms);
}

void check_llama4_layers(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  const auto turns = config.sizes("no_rope_layers");
  for (std::size_t l = 0; l < turns.size(); ++l) {
    if ((turns[l] != 0) == ((l + 1) % kLlama4Period != 0)) continue;
    config.unsupported("no_rope_layers",
                       "0 in every fourth layer alone, as llama.cpp has it");
  }
  if (turns.empty()) {
    require_gguf_number(out, "no_rope_layer_interval", kLlama4Period);
  }
  const std::size_t step = config.size("interleave_moe_layer_step").value_or(1);
  const auto mixed = config.sizes("moe_layers");
  if (!config.has("moe_layers")) return;
  for (std::size_t l = 0; l < config.size("num_hidden_layers"); ++l) {
    const bool wanted = step > 0 && (l + 1) % step == 0;
    if ((std::ranges::find(mixed, l) != mixed.end()) == wanted) continue;
    config.unsupported("moe_layers", "what interleave_moe_layer_step says");
  }
}

void write_llama4(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  if (config.is_null("attention_chunk_size")) {
    config.unsupported("attention_chunk_size", "8192, which llama.cpp takes");
  }
  require_gguf_number(out, "attention_chunk_size", kLlama4Chunk);
  refuse_gguf_flag(out, "attn_temperature_tuning", true);
  require_gguf_number(out, "floor_scale", kLlama4Chunk);
  require_gguf_number(out, "attn_scale", 0.1);
  const bool norms =
      config.size("num_local_experts").value_or(16) != kExpertsWithoutNorms;
  if (config.flag("use_qk_norm").value_or(true) != norms) {
    config.unsupported(
        "use_qk_norm",
        formatted("{}, which llama.cpp takes with so many experts",
                  json_flag(norms)));
  }
  check_llama4_layers(out);
  write_gguf_layer_types(out, "chunked_attention", kLlama4Period);
  write_gguf_whole_rope(out);
}

// --- Granite with experts

constexpr auto kGraniteMoe =
    joined(kEnds, kNorms, kTurnedAttention, kGraniteExperts);
constexpr GgufKey kGraniteMoeSizes[] = {
    {"expert_count", "num_local_experts", false, 8},
    {"expert_used_count", "num_experts_per_tok", false, 2}};
constexpr auto kGraniteMoeKeys =
    joined(kSizes, kRms, kGraniteMoeSizes, kGraniteScales);

bool has_shared(const GgufReading& in) {
  return in.size("expert_shared_feed_forward_length").value_or(0) > 0;
}

void read_granite_moe(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  out.erase("head_dim");
  if (has_shared(in)) {
    out["shared_intermediate_size"] =
        formatted("{}", in.require_size("expert_shared_feed_forward_length"));
  }
}

void write_granite_moe(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  out.size("expert_shared_feed_forward_length",
           out.config.size("shared_intermediate_size").value_or(0));
  write_gguf_whole_rope(out);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "granitemoe",
                     .model_type = "granitemoeshared",
                     .tensors = kGraniteMoe,
                     .keys = kGraniteMoeKeys,
                     .read = read_granite_moe,
                     .write = write_granite_moe,
                     .fits = has_shared,
                     .hf_class = "GraniteMoeSharedForCausalLM"},
    GgufArchitecture{.name = "granitemoe",
                     .model_type = "granitemoe",
                     .tensors = kGraniteMoe,
                     .keys = kGraniteMoeKeys,
                     .read = read_granite_moe,
                     .write = write_granite_moe,
                     .hf_class = "GraniteMoeForCausalLM"},
    GgufArchitecture{.name = "olmoe",
                     .model_type = "olmoe",
                     .tensors = kOlmoe,
                     .keys = kOlmoeKeys,
                     .read = read_olmoe,
                     .write = write_olmoe,
                     .hf_class = "OlmoeForCausalLM"},
    GgufArchitecture{.name = "llama4",
                     .model_type = "llama4_text",
                     .tensors = kLlama4,
                     .keys = kLlama4Keys,
                     .read = read_llama4,
                     .write = write_llama4,
                     .head_dim = 128,
                     .rope_theta = 5e5,
                     .hf_class = "Llama4ForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> expert_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

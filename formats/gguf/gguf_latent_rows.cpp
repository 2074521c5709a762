// Rows of the table of architectures (gguf_architecture.h): DeepSeek-V2, V3 and
// GLM-4.7-Flash, whose keys and values come from a latent.
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_expert_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

// The expanding matrix is written in two, as llama.cpp takes it into queries
// and outputs; earlier files have it whole.
constexpr Names kLatent[] = {
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_q_a", "model.layers.{}.self_attn.q_a_proj"},
    {"blk.{}.attn_q_a_norm", "model.layers.{}.self_attn.q_a_layernorm"},
    {"blk.{}.attn_q_b", "model.layers.{}.self_attn.q_b_proj"},
    {"blk.{}.attn_kv_a_mqa", "model.layers.{}.self_attn.kv_a_proj_with_mqa"},
    {"blk.{}.attn_kv_a_norm", "model.layers.{}.self_attn.kv_a_layernorm"},
    {"blk.{}.attn_k_b", "model.layers.{}.self_attn.kv_b_proj",
     Change::kLatentKeys},
    {"blk.{}.attn_v_b", "model.layers.{}.self_attn.kv_b_proj",
     Change::kLatentValues},
    {"blk.{}.attn_kv_b", "model.layers.{}.self_attn.kv_b_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.o_proj"},
    {"blk.{}.exp_probs_b.bias",
     "model.layers.{}.mlp.gate.e_score_correction_bias", Change::kNone, true}};
constexpr auto kDeepseek2 =
    joined(kEnds, kNorms, kLatent, kMlp, kRouter, kExperts, kSharedExperts);

constexpr GgufKey kRank[] = {
    {"attention.kv_lora_rank", "kv_lora_rank", false, 512}};
constexpr GgufKey kV2Experts[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 0},
    {"expert_count", "n_routed_experts", false, 64},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_shared_count", "n_shared_experts", false, 2},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1407},
    {"expert_weights_scale", "routed_scaling_factor", true, 1}};
constexpr GgufKey kV3Experts[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 3},
    {"expert_count", "n_routed_experts", false, 256},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_shared_count", "n_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 2048},
    {"expert_weights_scale", "routed_scaling_factor", true, 2.5}};
constexpr GgufKey kLiteExperts[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 1},
    {"expert_count", "n_routed_experts", false, 64},
    {"expert_used_count", "num_experts_per_tok", false, 4},
    {"expert_shared_count", "n_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1536},
    {"expert_weights_scale", "routed_scaling_factor", true, 1.8}};
constexpr auto kDeepseekV2Keys = joined(kSizes, kRms, kRank, kV2Experts);
constexpr auto kDeepseekV3Keys = joined(kSizes, kRms, kRank, kV3Experts);
constexpr auto kLiteKeys = joined(kSizes, kRmsOfOlmo, kRank, kLiteExperts);

bool has_sigmoid(const GgufReading& in) {
  return in.size("expert_gating_func").value_or(kGgufSoftmax) == kGgufSigmoid;
}

// Numbers of layers by which llama.cpp knows models without a query latent,
// whose rank it does not read then.
bool is_lite(std::size_t layers, std::size_t vocabulary) {
  return layers == 26 || layers == 27 || (layers == 48 && vocabulary == 128256);
}

void read_latent_yarn(const GgufReading& in, JsonFields& out) {
  read_gguf_rope(in, out);
  const auto at = out.find("rope_scaling");
  if (at == out.end()) return;
  nlohmann::json rope = nlohmann::json::parse(at->second);
  if (rope["rope_type"] != "yarn") return;
  // A tenth of it stands in files.
  const double multiplier =
      10 * in.number("rope.scaling.yarn_log_multiplier").value_or(0);
  if (multiplier == 0) {
    unsupported_gguf_key(in, "rope.scaling.yarn_log_multiplier",
                         "a number above 0");
  }
  rope["mscale"] = rope["mscale_all_dim"] =
      static_cast<double>(static_cast<float>(multiplier));
  at->second = rope.dump();
}

void read_deepseek(const GgufReading& in, JsonFields& out) {
  const std::size_t heads = gguf_heads(in);
  const std::size_t turned = in.require_size("rope.dimension_count");
  const bool split = in.size("attention.key_length_mla").has_value();
  const std::size_t key = in.require_size(split ? "attention.key_length_mla"
                                                : "attention.key_length");
  const std::size_t value = in.require_size(split ? "attention.value_length_mla"
                                                  : "attention.value_length");
  if (turned == 0 || turned % 2 != 0 || key <= turned) {
    unsupported_gguf_key(in, "rope.dimension_count", "a part of a key");
  }
  out["num_key_value_heads"] = formatted("{}", heads);
  out["qk_rope_head_dim"] = formatted("{}", turned);
  out["qk_nope_head_dim"] = formatted("{}", key - turned);
  out["v_head_dim"] = formatted("{}", value);
  const std::size_t rank = in.size("attention.q_lora_rank").value_or(0);
  const bool wide = rank == 0 || in.has("blk.0.attn_q.weight");
  out["q_lora_rank"] = wide ? "null" : formatted("{}", rank);
  read_latent_yarn(in, out);
}

void read_deepseek_v2(const GgufReading& in, JsonFields& out) {
  read_deepseek(in, out);
  out["topk_method"] = "\"greedy\"";
  out["norm_topk_prob"] = "false";
}

void read_deepseek_v3(const GgufReading& in, JsonFields& out) {
  read_deepseek(in, out);
  read_gguf_sigmoid(in, out);
}

void write_latent_sizes(const GgufWriting& out, std::size_t nope,
                        std::size_t value) {
  const ConfigReader& config = out.config;
  const auto size = [&](const char* key, std::size_t usual) {
    return config.size(key).value_or(usual);
  };
  const std::size_t turned = size("qk_rope_head_dim", 64);
  const std::size_t rank = size("kv_lora_rank", 512);
  nope = size("qk_nope_head_dim", nope);
  value = size("v_head_dim", value);
  out.size("attention.head_count_kv", 1);
  out.size("attention.key_length", rank + turned);
  out.size("attention.value_length", rank);
  out.size("attention.key_length_mla", nope + turned);
  out.size("attention.value_length_mla", value);
  out.size("rope.dimension_count", turned);
}

void write_latent_query(const GgufWriting& out, std::size_t usual) {
  const ConfigReader& config = out.config;
  const std::size_t layers = config.size("num_hidden_layers").value_or(0);
  const bool lite = is_lite(layers, config.size("vocab_size").value_or(0));
  const std::size_t rank = config.is_null("q_lora_rank")
                               ? 0
                               : config.size("q_lora_rank").value_or(usual);
  if (lite && rank != 0) {
    config.unsupported(
        "q_lora_rank",
        formatted("null: llama.cpp has none with {} layers", layers));
  }
  out.size("attention.q_lora_rank", rank);
}

void write_latent_rope(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "rope_interleave", true);
  const char* level =
      config.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const auto rope = config.object(level);
  const std::size_t turned = config.size("qk_rope_head_dim").value_or(64);
  double multiplier = 0;
  const auto type = [&](const char* key) {
    return rope ? rope->text(key).value_or("") : std::string();
  };
  if (type("rope_type") == "yarn" || type("type") == "yarn") {
    multiplier = rope->number("mscale_all_dim").value_or(0);
    if (multiplier == 0 || rope->number("mscale").value_or(0) != multiplier) {
      rope->unsupported("mscale",
                        "that of mscale_all_dim, which llama.cpp takes");
    }
  }
  const auto beside = config.number("rope_theta").value_or(10000);
  write_gguf_rope_of(out, rope, turned, beside,
                     {.log_multiplier = multiplier / 10});
}

void write_deepseek(const GgufWriting& out, std::size_t query_rank,
                    std::size_t nope, std::size_t value) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "mlp_bias", false);
  write_latent_sizes(out, nope, value);
  write_latent_query(out, query_rank);
  write_latent_rope(out);
}

void write_deepseek_v2(const GgufWriting& out) {
  write_deepseek(out, 1536, 128, 128);
  const std::string method = out.config.text("topk_method").value_or("greedy");
  if (method != "greedy" && out.config.size("n_group").value_or(1) > 1) {
    out.config.unsupported(
        "topk_method",
        "greedy: llama.cpp ranks groups by their two best experts");
  }
  out.size("expert_gating_func", kGgufSoftmax);
}

void write_deepseek_v3(const GgufWriting& out) {
  write_deepseek(out, 1536, 128, 128);
  write_gguf_sigmoid(out, {.groups = 8, .kept = 4});
}

void write_glm4_moe_lite(const GgufWriting& out) {
  write_deepseek(out, 768, 192, 256);
  check_gguf_mixed_layers(out, 1);
  write_gguf_sigmoid(out);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "deepseek2",
                     .model_type = "deepseek_v3",
                     .tensors = kDeepseek2,
                     .keys = kDeepseekV3Keys,
                     .read = read_deepseek_v3,
                     .write = write_deepseek_v3,
                     .fits = has_sigmoid,
                     .hf_class = "DeepseekV3ForCausalLM"},
    GgufArchitecture{.name = "deepseek2",
                     .model_type = "deepseek_v2",
                     .tensors = kDeepseek2,
                     .keys = kDeepseekV2Keys,
                     .read = read_deepseek_v2,
                     .write = write_deepseek_v2,
                     .hf_class = "DeepseekV2ForCausalLM"},
    GgufArchitecture{.name = "deepseek2",
                     .model_type = "glm4_moe_lite",
                     .tensors = kDeepseek2,
                     .keys = kLiteKeys,
                     .read = read_deepseek_v3,
                     .write = write_glm4_moe_lite,
                     .hf_class = "Glm4MoeLiteForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> latent_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

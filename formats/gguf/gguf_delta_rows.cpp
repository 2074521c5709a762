// Rows of the table of architectures (gguf_architecture.h): Qwen3-Next and
// Qwen3.5, with Gated DeltaNet in most layers.
#include <array>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"
#include "formats/gguf/gguf_sections.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kNextNorms[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm", Change::kPlusOne},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm", Change::kPlusOne},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm",
     Change::kPlusOne},
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm",
     Change::kPlusOne},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm",
     Change::kPlusOne}};
// Earlier files have the four inputs in one, as the folder has them.
constexpr Names kDelta[] = {
    {"blk.{}.attn_qkv", "model.layers.{}.linear_attn.in_proj_qkvz",
     Change::kDeltaInputs},
    {"blk.{}.attn_gate", "model.layers.{}.linear_attn.in_proj_qkvz",
     Change::kDeltaGates},
    {"blk.{}.ssm_in", "model.layers.{}.linear_attn.in_proj_qkvz"},
    {"blk.{}.ssm_ba", "model.layers.{}.linear_attn.in_proj_ba"},
    {"blk.{}.ssm_conv1d", "model.layers.{}.linear_attn.conv1d", Change::kTaps},
    {"blk.{}.ssm_dt.bias", "model.layers.{}.linear_attn.dt_bias", Change::kNone,
     true},
    {"blk.{}.ssm_a", "model.layers.{}.linear_attn.A_log", Change::kMinusExp,
     true},
    {"blk.{}.ssm_norm", "model.layers.{}.linear_attn.norm"},
    {"blk.{}.ssm_out", "model.layers.{}.linear_attn.out_proj"}};
constexpr Names kSharedExpert[] = {
    {"blk.{}.ffn_gate_inp_shexp", "model.layers.{}.mlp.shared_expert_gate",
     Change::kOneRow},
    {"blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_expert.gate_proj"},
    {"blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_expert.down_proj"},
    {"blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_expert.up_proj"}};
constexpr auto kQwen3Next =
    joined(kNextNorms, kDelta, kAttention, kRouter, kExperts, kSharedExpert);

// Qwen3.5 has the inputs one by one, and in GGUF heads of values in another order.
constexpr Names kTiledDelta[] = {
    {"blk.{}.attn_qkv", "model.layers.{}.linear_attn.in_proj_qkv",
     Change::kTiledInputs},
    {"blk.{}.attn_gate", "model.layers.{}.linear_attn.in_proj_z",
     Change::kTiledRows},
    {"blk.{}.ssm_beta", "model.layers.{}.linear_attn.in_proj_b",
     Change::kTiledRows},
    {"blk.{}.ssm_alpha", "model.layers.{}.linear_attn.in_proj_a",
     Change::kTiledRows},
    {"blk.{}.ssm_conv1d", "model.layers.{}.linear_attn.conv1d",
     Change::kTiledTaps},
    {"blk.{}.ssm_dt.bias", "model.layers.{}.linear_attn.dt_bias",
     Change::kTiledRows, true},
    {"blk.{}.ssm_a", "model.layers.{}.linear_attn.A_log",
     Change::kTiledMinusExp, true},
    {"blk.{}.ssm_norm", "model.layers.{}.linear_attn.norm"},
    {"blk.{}.ssm_out", "model.layers.{}.linear_attn.out_proj",
     Change::kTiledColumns}};
constexpr auto kQwen35 = joined(kNextNorms, kTiledDelta, kAttention, kMlp);
constexpr auto kQwen35Moe = joined(kNextNorms, kTiledDelta, kAttention, kRouter,
                                   kExperts, kSharedExpert);

constexpr GgufKey kNextSizes[] = {
    {"context_length", "max_position_embeddings", false, 32768},
    {"embedding_length", "hidden_size", false, 2048},
    {"block_count", "num_hidden_layers", false, 48},
    {"feed_forward_length", "intermediate_size", false, 5632},
    {"attention.head_count", "num_attention_heads", false, 16},
    {"expert_count", "num_experts", false, 512},
    {"expert_used_count", "num_experts_per_tok", false, 10},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 512},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size",
     false, 512},
    {"ssm.conv_kernel", "linear_conv_kernel_dim", false, 4},
    {"ssm.state_size", "linear_key_head_dim", false, 128},
    {"ssm.group_count", "linear_num_key_heads", false, 16},
    {"ssm.time_step_rank", "linear_num_value_heads", false, 32}};
constexpr auto kQwen3NextKeys = joined(kNextSizes, kRms);
constexpr GgufKey kDeltaSizes[] = {
    {"context_length", "max_position_embeddings", false, 32768},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"attention.head_count", "num_attention_heads", false, 16},
    {"ssm.conv_kernel", "linear_conv_kernel_dim", false, 4},
    {"ssm.state_size", "linear_key_head_dim", false, 128},
    {"ssm.group_count", "linear_num_key_heads", false, 16},
    {"ssm.time_step_rank", "linear_num_value_heads", false, 32}};
constexpr GgufKey kDenseFfn[] = {
    {"feed_forward_length", "intermediate_size", false, 12288}};
constexpr GgufKey kQwen35Experts[] = {
    {"expert_count", "num_experts", false, 256},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 512},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size",
     false, 512}};
constexpr auto kQwen35Keys = joined(kDeltaSizes, kRms, kDenseFfn);
constexpr auto kQwen35MoeKeys = joined(kDeltaSizes, kRms, kQwen35Experts);

constexpr std::size_t kInterval = 4;

void read_delta_layers(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  const std::size_t heads = in.require_size("ssm.time_step_rank");
  const std::size_t inner = in.require_size("ssm.inner_size");
  if (heads == 0 || inner % heads != 0) {
    unsupported_gguf_key(in, "ssm.inner_size", "whole heads");
  }
  out["linear_value_head_dim"] = formatted("{}", inner / heads);
  out["layer_types"] = read_gguf_recurrent_layers(in, kInterval);
}

void read_qwen3_next(const GgufReading& in, JsonFields& out) {
  read_delta_layers(in, out);
  out["norm_topk_prob"] = "true";
  out["decoder_sparse_step"] = "1";
}

void write_layers(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  const std::size_t layers = config.size("num_hidden_layers").value_or(48);
  const std::size_t interval =
      config.size("full_attention_interval").value_or(kInterval);
  if (interval == 0) config.invalid("full_attention_interval", "a size");
  const std::vector<std::string> types = config.texts("layer_types");
  std::vector<bool> recurrent;
  for (std::size_t l = 0; l < layers; ++l) {
    recurrent.push_back(l < types.size() ? types[l] == "linear_attention"
                                         : (l + 1) % interval != 0);
  }
  out.metadata.set_array(
      std::string(out.architecture) + ".attention.recurrent_layers", recurrent);
  out.size("full_attention_interval", interval);
}

void write_delta(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  const auto size = [&](const char* key, std::size_t usual) {
    return config.size(key).value_or(usual);
  };
  const std::size_t value = size("linear_value_head_dim", 128);
  if (value != size("linear_key_head_dim", 128)) {
    config.unsupported("linear_value_head_dim",
                       "linear_key_head_dim: llama.cpp has one for both");
  }
  out.size("ssm.inner_size", value * size("linear_num_value_heads", 32));
  write_layers(out);
  write_partial_gguf_rope(out, 0.25);
}

void write_qwen3_next(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "norm_topk_prob", true);
  require_gguf_number(out, "decoder_sparse_step", 1);
  if (!config.sizes("mlp_only_layers").empty()) {
    config.unsupported("mlp_only_layers", "experts in every layer");
  }
  write_delta(out);
}

void read_qwen3_5(const GgufReading& in, JsonFields& out) {
  read_delta_layers(in, out);
  read_gguf_sections(in, out);
}

void write_qwen3_5(const GgufWriting& out) {
  write_delta(out);
  write_gguf_sections(out, GgufSections::kInterleaved);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "qwen3next",
                     .model_type = "qwen3_next",
                     .tensors = kQwen3Next,
                     .keys = kQwen3NextKeys,
                     .read = read_qwen3_next,
                     .write = write_qwen3_next,
                     .head_dim = 256,
                     .hf_class = "Qwen3NextForCausalLM"},
    GgufArchitecture{.name = "qwen35",
                     .model_type = "qwen3_5_text",
                     .tensors = kQwen35,
                     .keys = kQwen35Keys,
                     .read = read_qwen3_5,
                     .write = write_qwen3_5,
                     .head_dim = 256,
                     .hf_class = "Qwen3_5ForCausalLM"},
    GgufArchitecture{.name = "qwen35moe",
                     .model_type = "qwen3_5_moe_text",
                     .tensors = kQwen35Moe,
                     .keys = kQwen35MoeKeys,
                     .read = read_qwen3_5,
                     .write = write_qwen3_5,
                     .head_dim = 256,
                     .hf_class = "Qwen3_5MoeForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> delta_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

// Rows of the table of architectures (gguf_architecture.h): state space models,
// and LFM2, whose layers are short convolutions or attention.
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_expert_keys.h"
#include "formats/gguf/gguf_hybrid_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr std::size_t kNoEnd = std::size_t{1} << 20;  // of the context

// --- Mamba

constexpr Names kBackbone[] = {
    {"token_embd", "backbone.embeddings"},
    {"output_norm", "backbone.norm_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "backbone.layers.{}.norm"},
    {"blk.{}.ssm_in", "backbone.layers.{}.mixer.in_proj"},
    {"blk.{}.ssm_conv1d", "backbone.layers.{}.mixer.conv1d", Change::kTaps},
    {"blk.{}.ssm_out", "backbone.layers.{}.mixer.out_proj"}};
constexpr Names kSelective[] = {
    {"blk.{}.ssm_x", "backbone.layers.{}.mixer.x_proj"},
    {"blk.{}.ssm_dt", "backbone.layers.{}.mixer.dt_proj"},
    {"blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", Change::kMinusExp, true},
    {"blk.{}.ssm_d", "backbone.layers.{}.mixer.D", Change::kNone, true}};
constexpr Names kScalar[] = {
    {"blk.{}.ssm_dt.bias", "backbone.layers.{}.mixer.dt_bias", Change::kNone,
     true},
    {"blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", Change::kMinusExpColumn,
     true},
    {"blk.{}.ssm_d", "backbone.layers.{}.mixer.D", Change::kColumn, true},
    {"blk.{}.ssm_norm", "backbone.layers.{}.mixer.norm", Change::kGroups}};
constexpr auto kMamba = joined(kBackbone, kSelective);
constexpr auto kMamba2 = joined(kBackbone, kScalar);

constexpr GgufKey kMambaKeys[] = {
    {"embedding_length", "hidden_size", false, 768},
    {"block_count", "num_hidden_layers", false, 32},
    {"attention.layer_norm_rms_epsilon", "layer_norm_epsilon", true, 1e-5},
    {"ssm.state_size", "state_size", false, 16},
    {"ssm.conv_kernel", "conv_kernel", false, 4}};
constexpr GgufKey kMamba2Keys[] = {
    {"embedding_length", "hidden_size", false, 4096},
    {"block_count", "num_hidden_layers", false, 64},
    {"attention.layer_norm_rms_epsilon", "layer_norm_epsilon", true, 1e-5},
    {"ssm.state_size", "state_size", false, 128},
    {"ssm.conv_kernel", "conv_kernel", false, 4},
    {"ssm.time_step_rank", "num_heads", false, 128},
    {"ssm.group_count", "n_groups", false, 8}};

bool norms_scan(const GgufReading& in) {
  return in.flag("ssm.dt_b_c_rms").value_or(false);
}

void read_mamba(const GgufReading& in, JsonFields& out) {
  out["intermediate_size"] = formatted("{}", in.require_size("ssm.inner_size"));
  out["time_step_rank"] =
      formatted("{}", in.require_size("ssm.time_step_rank"));
  if (norms_scan(in)) out["mixer_rms_eps"] = out["layer_norm_epsilon"];
  out["use_bias"] = json_flag(in.has("blk.0.ssm_in.bias"));
  out["use_conv_bias"] = json_flag(in.has("blk.0.ssm_conv1d.bias"));
}

// What stands in every file, also where nothing asks for it.
void write_mamba_rest(const GgufWriting& out) {
  out.size("context_length", kNoEnd);
  out.size("feed_forward_length", 0);
  out.size("attention.head_count", 0);
}

void write_mamba(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "use_bias", false);
  refuse_gguf_flag(out, "use_conv_bias", true);
  const std::size_t hidden = config.size("hidden_size").value_or(768);
  const std::size_t inner =
      config.size("intermediate_size")
          .value_or(config.size("expand").value_or(2) * hidden);
  if (inner != 2 * hidden) {
    config.unsupported("intermediate_size",
                       "twice hidden_size, which llama.cpp takes");
  }
  const bool normed = config.text("model_type") == "falcon_mamba";
  if (normed) {
    const double epsilon = config.number("layer_norm_epsilon").value_or(1e-5);
    if (config.number("mixer_rms_eps").value_or(1e-6) != epsilon) {
      config.unsupported("mixer_rms_eps",
                         "layer_norm_epsilon, which llama.cpp takes");
    }
  }
  write_mamba_rest(out);
  out.size("ssm.inner_size", inner);
  const std::size_t rank =
      config.is_text("time_step_rank")
          ? (hidden + 15) / 16
          : config.size("time_step_rank").value_or((hidden + 15) / 16);
  out.size("ssm.time_step_rank", rank);
  out.flag("ssm.dt_b_c_rms", normed);
}

void read_mamba2(const GgufReading& in, JsonFields& out) {
  const std::size_t inner = in.require_size("ssm.inner_size");
  const std::size_t heads = in.require_size("ssm.time_step_rank");
  const std::size_t hidden = in.require_size("embedding_length");
  if (heads == 0 || hidden == 0 || inner % heads != 0 || inner % hidden != 0) {
    unsupported_gguf_key(in, "ssm.inner_size", "whole heads");
  }
  out["head_dim"] = formatted("{}", inner / heads);
  out["expand"] = formatted("{}", inner / hidden);
  out["use_bias"] = json_flag(in.has("blk.0.ssm_in.bias"));
  out["use_conv_bias"] = json_flag(in.has("blk.0.ssm_conv1d.bias"));
}

void write_mamba2(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "use_bias", false);
  refuse_gguf_flag(out, "use_conv_bias", true);
  refuse_gguf_time_step_limit(out);
  write_mamba_rest(out);
  out.size("ssm.inner_size", config.size("num_heads").value_or(128) *
                                 config.size("head_dim").value_or(64));
}

// --- LFM2

constexpr Names kLfm2[] = {
    {"token_embd", "model.embed_tokens"},
    {"token_embd_norm", "model.embedding_norm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.operator_norm"},
    {"blk.{}.ffn_norm", "model.layers.{}.ffn_norm"},
    {"blk.{}.attn_q", "model.layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "model.layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "model.layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "model.layers.{}.self_attn.out_proj"},
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_layernorm"},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_layernorm"},
    {"blk.{}.shortconv.conv", "model.layers.{}.conv.conv", Change::kTaps},
    {"blk.{}.shortconv.in_proj", "model.layers.{}.conv.in_proj"},
    {"blk.{}.shortconv.out_proj", "model.layers.{}.conv.out_proj"},
    {"blk.{}.ffn_gate", "model.layers.{}.feed_forward.w1"},
    {"blk.{}.ffn_down", "model.layers.{}.feed_forward.w2"},
    {"blk.{}.ffn_up", "model.layers.{}.feed_forward.w3"},
    {"blk.{}.ffn_gate_inp", "model.layers.{}.feed_forward.gate"},
    {"blk.{}.ffn_gate_exps", "model.layers.{}.feed_forward.experts.{e}.w1"},
    {"blk.{}.ffn_down_exps", "model.layers.{}.feed_forward.experts.{e}.w2"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.feed_forward.experts.{e}.w3"},
    {"blk.{}.exp_probs_b.bias", "model.layers.{}.feed_forward.expert_bias",
     Change::kNone, true}};

constexpr GgufKey kLfm2Keys[] = {
    {"context_length", "max_position_embeddings", false, 128000},
    {"embedding_length", "hidden_size", false, 2560},
    {"block_count", "num_hidden_layers", false, 32},
    {"attention.head_count", "num_attention_heads", false, 32},
    {"attention.layer_norm_rms_epsilon", "norm_eps", true, 1e-5},
    {"shortconv.l_cache", "conv_L_cache", false, 3}};
constexpr GgufKey kLfm2Experts[] = {
    {"feed_forward_length", "intermediate_size", false, 7168},
    {"leading_dense_block_count", "num_dense_layers", false, 2},
    {"expert_count", "num_experts", false, 32},
    {"expert_used_count", "num_experts_per_tok", false, 4},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1792},
    {"expert_weights_scale", "routed_scaling_factor", true, 1}};
constexpr auto kLfm2MoeKeys = joined(kLfm2Keys, kLfm2Experts);

// Layers without keys are convolutions.
void read_lfm2_layers(const GgufReading& in, JsonFields& out) {
  const GgufLayerHeads heads = read_gguf_layer_heads(in);
  nlohmann::json types = nlohmann::json::array();
  for (const bool attends : heads.attends) {
    types.push_back(attends ? "full_attention" : "conv");
  }
  out["num_key_value_heads"] = formatted("{}", heads.kv_heads);
  out["layer_types"] = types.dump();
  out["conv_bias"] = json_flag(in.has("blk.0.shortconv.in_proj.bias"));
  read_gguf_rope(in, out);
}

void read_lfm2(const GgufReading& in, JsonFields& out) {
  read_lfm2_layers(in, out);
  out["intermediate_size"] =
      formatted("{}", in.require_size("feed_forward_length"));
  out["block_auto_adjust_ff_dim"] = "false";
}

void read_lfm2_moe(const GgufReading& in, JsonFields& out) {
  constexpr std::string_view kGate = "expert_gating_func";
  if (in.size(kGate).value_or(kGgufSigmoid) != kGgufSigmoid) {
    unsupported_gguf_key(in, kGate, "2");
  }
  read_lfm2_layers(in, out);
}

void write_lfm2_layers(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  refuse_gguf_flag(out, "conv_bias", false);
  const GgufHeads h = gguf_heads(out);
  require_gguf_square_heads(out);
  const std::size_t layers = config.size("num_hidden_layers").value_or(32);
  const auto types = config.texts("layer_types");
  const auto attention = config.sizes("full_attn_idxs");
  GgufLayerHeads heads{.kv_heads = h.kv_heads};
  for (std::size_t l = 0; l < layers; ++l) {
    bool has = attention.empty();
    for (const std::size_t layer : attention) has |= layer == l;
    if (l < types.size()) has = types[l] == "full_attention";
    heads.attends.push_back(has);
  }
  write_gguf_layer_heads(out, heads);
  out.size("rope.dimension_count", h.head_dim);
  refuse_gguf_rope_scaling(out);
  write_gguf_rope(out, h.head_dim, 1e6);
}

void write_lfm2(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  write_lfm2_layers(out);
  std::size_t width = config.size("intermediate_size").value_or(12288);
  if (config.flag("block_auto_adjust_ff_dim").value_or(true)) {
    width = 2 * width / 3;
    const double cut = config.number("block_ffn_dim_multiplier").value_or(1.0) *
                       static_cast<double>(width);
    const std::size_t multiple = config.size("block_multiple_of").value_or(256);
    if (multiple == 0) config.invalid("block_multiple_of", "a size above 0");
    width =
        (static_cast<std::size_t>(cut) + multiple - 1) / multiple * multiple;
  }
  out.size("feed_forward_length", width);
}

void write_lfm2_moe(const GgufWriting& out) {
  refuse_gguf_flag(out, "norm_topk_prob", true);
  refuse_gguf_flag(out, "use_expert_bias", true);
  out.size("expert_gating_func", kGgufSigmoid);
  write_lfm2_layers(out);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "mamba",
                     .model_type = "falcon_mamba",
                     .tensors = kMamba,
                     .keys = kMambaKeys,
                     .read = read_mamba,
                     .write = write_mamba,
                     .fits = norms_scan,
                     .tied = true,
                     .hf_class = "FalconMambaForCausalLM"},
    GgufArchitecture{.name = "mamba",
                     .model_type = "mamba",
                     .tensors = kMamba,
                     .keys = kMambaKeys,
                     .read = read_mamba,
                     .write = write_mamba,
                     .tied = true,
                     .hf_class = "MambaForCausalLM"},
    GgufArchitecture{.name = "mamba2",
                     .model_type = "mamba2",
                     .tensors = kMamba2,
                     .keys = kMamba2Keys,
                     .read = read_mamba2,
                     .write = write_mamba2,
                     .hf_class = "Mamba2ForCausalLM"},
    GgufArchitecture{.name = "lfm2",
                     .model_type = "lfm2",
                     .tensors = kLfm2,
                     .keys = kLfm2Keys,
                     .read = read_lfm2,
                     .write = write_lfm2,
                     .rope_theta = 1e6,
                     .tied = true,
                     .hf_class = "Lfm2ForCausalLM"},
    GgufArchitecture{.name = "lfm2moe",
                     .model_type = "lfm2_moe",
                     .tensors = kLfm2,
                     .keys = kLfm2MoeKeys,
                     .read = read_lfm2_moe,
                     .write = write_lfm2_moe,
                     .rope_theta = 1e6,
                     .tied = true,
                     .hf_class = "Lfm2MoeForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> recurrent_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

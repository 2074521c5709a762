// Rows of the table of architectures (gguf_architecture.h): mixtures of many
// small experts, most of them chosen as DeepSeek-V3 does.
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_expert_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kCorrection[] = {
    {"blk.{}.exp_probs_b.bias",
     "model.layers.{}.mlp.gate.e_score_correction_bias", Change::kNone, true}};
constexpr GgufKey kNoDense[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 0}};
constexpr GgufKey kOneDense[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 1}};
constexpr GgufKey kManyExperts[] = {
    {"expert_count", "n_routed_experts", false, 128},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_shared_count", "n_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1408},
    {"expert_weights_scale", "routed_scaling_factor", true, 1}};

// --- dots.llm1

constexpr auto kDots1 = joined(kEnds, kNorms, kAttention, kHeadNorms, kMlp,
                               kRouter, kExperts, kSharedExperts, kCorrection);
constexpr auto kDots1Keys = joined(kSizes, kRms, kNoDense, kManyExperts);

void read_dots1(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  read_gguf_sigmoid(in, out);
  out["sliding_window"] = "null";
}

void write_dots1(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_tied(out, false);
  const GgufHeads h = gguf_heads(out);
  if (h.kv_heads != h.heads) {
    config.unsupported("num_key_value_heads", "num_attention_heads");
  }
  const std::size_t layers = config.size("num_hidden_layers").value_or(0);
  const auto types = config.texts("layer_types");
  const bool windows =
      types.empty() ? config.size("max_window_layers").value_or(62) < layers
                    : std::ranges::count(types, "full_attention") !=
                          std::ptrdiff_t(types.size());
  if (windows) refuse_gguf_window(out);
  refuse_gguf_rope_scaling(out);
  write_gguf_sigmoid(out, {.normalizes = false});
  write_gguf_whole_rope(out);
}

// --- GLM-4.5 and Solar Open

constexpr Names kGlmNorms[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"}};
constexpr auto kGlm4Moe =
    joined(kEnds, kGlmNorms, kAttention, kHeadNorms, kMlp, kRouter, kExperts,
           kSharedExperts, kCorrection);
constexpr auto kGlm4MoeKeys =
    joined(kSizes, kRmsOfOlmo, kOneDense, kManyExperts);
constexpr GgufKey kSolarKeys[] = {
    {"context_length", "max_position_embeddings", false, 131072},
    {"embedding_length", "hidden_size", false, 4096},
    {"block_count", "num_hidden_layers", false, 48},
    {"feed_forward_length", "moe_intermediate_size", false, 1280},
    {"attention.head_count", "num_attention_heads", false, 64}};
constexpr GgufKey kSolarExperts[] = {
    {"expert_count", "n_routed_experts", false, 128},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_shared_count", "n_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1280},
    {"expert_weights_scale", "routed_scaling_factor", true, 1}};
constexpr auto kSolarOpenKeys =
    joined(kSolarKeys, kRmsOfOlmo, kNoDense, kSolarExperts);

void read_glm4_moe(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  read_gguf_sigmoid(in, out);
  out["use_qk_norm"] = json_flag(in.has("blk.0.attn_q_norm.weight"));
}

void write_glm4_moe(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  write_gguf_sigmoid(out);
  write_partial_gguf_rope(out, 0.5);
}

void write_solar_open(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  write_gguf_sigmoid(out);
  write_gguf_whole_rope(out);
}

// --- EXAONE-MoE

constexpr Names kExaoneCorrection[] = {
    {"blk.{}.exp_probs_b.bias", "model.layers.{}.mlp.e_score_correction_bias",
     Change::kNone, true}};
constexpr auto kExaoneMoe =
    joined(kEnds, kNorms, kAttention, kHeadNorms, kMlp, kRouter, kExperts,
           kSharedExperts, kExaoneCorrection);
constexpr GgufKey kExaoneSizes[] = {
    {"leading_dense_block_count", "first_k_dense_replace", false, 1},
    {"expert_count", "num_experts", false, 64},
    {"expert_used_count", "num_experts_per_tok", false, 8},
    {"expert_shared_count", "num_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1024},
    {"expert_weights_scale", "routed_scaling_factor", true, 2.5},
    {"attention.sliding_window", "sliding_window", false, 4096}};
constexpr auto kExaoneMoeKeys = joined(kSizes, kRmsOfOlmo, kExaoneSizes);

void read_exaone_moe(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  read_gguf_sigmoid(in, out);
  out["layer_types"] =
      read_gguf_layer_types(in, "sliding_attention", "full_attention", 4);
}

void write_exaone_moe(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_tied(out, false);
  if (config.is_null("sliding_window")) {
    config.unsupported("sliding_window", "a size");
  }
  check_gguf_mixed_layers(out,
                          config.size("first_k_dense_replace").value_or(1));
  out.size("expert_shared_feed_forward_length",
           config.size("moe_intermediate_size").value_or(1024) *
               config.size("num_shared_experts").value_or(1));
  write_gguf_layer_types(out, "sliding_attention",
                         config.size("sliding_window_pattern").value_or(4));
  write_gguf_sigmoid(out, {.experts = "num_experts"});
  write_gguf_whole_rope(out);
}

// --- Ernie 4.5 with experts

constexpr Names kErnieCorrection[] = {
    {"blk.{}.exp_probs_b.bias",
     "model.layers.{}.mlp.moe_statics.e_score_correction_bias", Change::kOneRow,
     true}};
constexpr auto kErnieMoe = joined(kEnds, kNorms, kAttention, kMlp, kRouter,
                                  kExperts, kSharedExperts, kErnieCorrection);
constexpr GgufKey kErnieSizes[] = {
    {"leading_dense_block_count", "moe_layer_start_index", false, 1},
    {"interleave_moe_layer_step", "moe_layer_interval", false, 1},
    {"expert_count", "moe_num_experts", false, 64},
    {"expert_used_count", "moe_k", false, 6},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 1536}};
constexpr auto kErnieMoeKeys = joined(kSizes, kRmsOfOlmo, kErnieSizes);

void read_ernie_moe(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
  const std::size_t width =
      std::max<std::size_t>(1, in.require_size("expert_feed_forward_length"));
  const std::size_t shared =
      in.size("expert_shared_feed_forward_length").value_or(0);
  out["moe_num_shared_experts"] = formatted("{}", shared / width);
  out["use_bias"] = "false";
}

void write_ernie_moe(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "use_bias", false);
  require_gguf_number(out, "moe_layer_interval", 1);
  const double end = config.number("moe_layer_end_index").value_or(-1);
  const auto layers =
      static_cast<double>(config.size("num_hidden_layers").value_or(0));
  if (end != -1 && end + 1 < layers) {
    config.unsupported("moe_layer_end_index", "-1");
  }
  out.size("expert_shared_feed_forward_length",
           config.size("moe_intermediate_size").value_or(1536) *
               config.size("moe_num_shared_experts").value_or(2));
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
}

// --- MiniMax-M2

constexpr Names kMiniMaxMoe[] = {
    {"blk.{}.ffn_gate_inp", "model.layers.{}.block_sparse_moe.gate"},
    {"blk.{}.ffn_gate_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w1"},
    {"blk.{}.ffn_down_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w2"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.block_sparse_moe.experts.{e}.w3"},
    {"blk.{}.exp_probs_b.bias",
     "model.layers.{}.block_sparse_moe.e_score_correction_bias", Change::kNone,
     true}};
constexpr auto kMiniMaxM2 =
    joined(kEnds, kNorms, kAttention, kHeadNorms, kMiniMaxMoe);
constexpr GgufKey kMiniMaxKeys[] = {
    {"context_length", "max_position_embeddings", false, 196608},
    {"embedding_length", "hidden_size", false, 3072},
    {"block_count", "num_hidden_layers", false, 62},
    {"feed_forward_length", "intermediate_size", false, 1536},
    {"expert_feed_forward_length", "intermediate_size", false, 1536},
    {"attention.head_count", "num_attention_heads", false, 48},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1e-6},
    {"expert_count", "num_local_experts", false, 256},
    {"expert_used_count", "num_experts_per_tok", false, 8}};

void read_minimax_m2(const GgufReading& in, JsonFields& out) {
  const double part = read_partial_gguf_heads(in, out);
  read_gguf_rope(in, out);
  out["partial_rotary_factor"] = json_number(part);
}

void write_minimax_m2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_tied(out, false);
  refuse_gguf_rope_scaling(out);
  out.size("expert_gating_func", kGgufSigmoid);
  const GgufHeads h = gguf_heads(out);
  const double turned =
      static_cast<double>(out.config.size("rotary_dim").value_or(h.head_dim));
  write_partial_gguf_rope(out, turned / static_cast<double>(h.head_dim));
}

// --- Hunyuan

constexpr Names kHunyuanNorms[] = {
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.query_layernorm"},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.key_layernorm"}};
constexpr Names kHunyuanShared[] = {
    {"blk.{}.ffn_gate_inp", "model.layers.{}.mlp.gate.wg"},
    {"blk.{}.ffn_gate_shexp", "model.layers.{}.mlp.shared_mlp.gate_proj"},
    {"blk.{}.ffn_down_shexp", "model.layers.{}.mlp.shared_mlp.down_proj"},
    {"blk.{}.ffn_up_shexp", "model.layers.{}.mlp.shared_mlp.up_proj"}};
constexpr auto kHunyuan =
    joined(kEnds, kNorms, kAttention, kHunyuanNorms, kMlp);
constexpr auto kHunyuanMoe =
    joined(kEnds, kNorms, kAttention, kHunyuanNorms, kExperts, kHunyuanShared);
constexpr auto kHunyuanKeys = joined(kSizes, kRmsOfOlmo);

void read_hunyuan(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
}

// The base of the rotary embedding that "dynamic" with alpha stands for.
double hunyuan_theta(const GgufWriting& out, std::size_t head_dim) {
  const ConfigReader& config = out.config;
  const bool older = config.has("rope_scaling");
  const auto rope = config.object(older ? "rope_scaling" : "rope_parameters");
  const double beside = config.number("rope_theta").value_or(10000);
  if (!rope) return beside;
  const double theta = rope->number("rope_theta").value_or(beside);
  const std::string type =
      rope->text("rope_type").value_or(rope->text("type").value_or("default"));
  if (type == "default") return theta;
  const double alpha = rope->number("alpha").value_or(0);
  if (type != "dynamic" || !(alpha > 0)) {
    rope->unsupported("rope_type", "default, or dynamic with alpha");
  }
  const auto d = static_cast<double>(head_dim);
  return theta * std::pow(alpha, d / (d - 2));
}

void write_hunyuan(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  const GgufHeads h = write_gguf_heads(out);
  out.size("rope.dimension_count", h.head_dim);
  out.number("rope.freq_base", hunyuan_theta(out, h.head_dim));
}

void read_hunyuan_moe(const GgufReading& in, JsonFields& out) {
  read_hunyuan(in, out);
  out["num_experts"] = formatted("{}", in.require_size("expert_count"));
  out["moe_topk"] = formatted("{}", in.require_size("expert_used_count"));
}

void write_hunyuan_moe(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  write_hunyuan(out);
  const auto size = [&](const char* key, const char* other) {
    const auto values = config.sizes(config.has(key) ? key : other);
    if (values.empty()) return std::size_t{1};
    for (const std::size_t value : values) {
      if (value != values[0]) config.unsupported(key, "one for all layers");
    }
    return values[0];
  };
  const std::size_t width = config.size("intermediate_size").value_or(0);
  out.size("expert_count", size("num_experts", "num_local_experts"));
  out.size("expert_used_count", size("moe_topk", "num_experts_per_tok"));
  out.size("expert_feed_forward_length", width);
  out.size("expert_shared_feed_forward_length", width);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "dots1",
                     .model_type = "dots1",
                     .tensors = kDots1,
                     .keys = kDots1Keys,
                     .read = read_dots1,
                     .write = write_dots1,
                     .hf_class = "Dots1ForCausalLM"},
    GgufArchitecture{.name = "glm4moe",
                     .model_type = "glm4_moe",
                     .tensors = kGlm4Moe,
                     .keys = kGlm4MoeKeys,
                     .read = read_glm4_moe,
                     .write = write_glm4_moe,
                     .hf_class = "Glm4MoeForCausalLM"},
    GgufArchitecture{.name = "glm4moe",
                     .model_type = "solar_open",
                     .tensors = kGlm4Moe,
                     .keys = kSolarOpenKeys,
                     .read = read_glm4_moe,
                     .write = write_solar_open,
                     .head_dim = 128,
                     .rope_theta = 1e6,
                     .hf_class = "SolarOpenForCausalLM"},
    GgufArchitecture{.name = "exaone-moe",
                     .model_type = "exaone_moe",
                     .tensors = kExaoneMoe,
                     .keys = kExaoneMoeKeys,
                     .read = read_exaone_moe,
                     .write = write_exaone_moe,
                     .hf_class = "ExaoneMoeForCausalLM"},
    GgufArchitecture{.name = "ernie4_5-moe",
                     .model_type = "ernie4_5_moe",
                     .tensors = kErnieMoe,
                     .keys = kErnieMoeKeys,
                     .read = read_ernie_moe,
                     .write = write_ernie_moe,
                     .rope_theta = 5e5,
                     .tied = true,
                     .hf_class = "Ernie4_5_MoeForCausalLM"},
    GgufArchitecture{.name = "minimax-m2",
                     .model_type = "minimax_m2",
                     .tensors = kMiniMaxM2,
                     .keys = kMiniMaxKeys,
                     .read = read_minimax_m2,
                     .write = write_minimax_m2,
                     .head_dim = 128,
                     .rope_theta = 5e6,
                     .hf_class = "MiniMaxM2ForCausalLM"},
    GgufArchitecture{.name = "hunyuan-dense",
                     .model_type = "hunyuan_v1_dense",
                     .tensors = kHunyuan,
                     .keys = kHunyuanKeys,
                     .read = read_hunyuan,
                     .write = write_hunyuan,
                     .hf_class = "HunYuanDenseV1ForCausalLM"},
    GgufArchitecture{.name = "hunyuan-moe",
                     .model_type = "hunyuan_v1_moe",
                     .tensors = kHunyuanMoe,
                     .keys = kHunyuanKeys,
                     .read = read_hunyuan_moe,
                     .write = write_hunyuan_moe,
                     .hf_class = "HunYuanMoEV1ForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> sigmoid_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

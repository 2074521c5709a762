// Rows of the table of architectures (gguf_architecture.h): state space mixers
// in most layers and attention in some, each before an MLP or a mixture of
// experts: Jamba, Bamba and Granite 4.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_hybrid_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

// Both of llama.cpp's mixers are twice as wide as the stream.
constexpr std::size_t kExpansion = 2;

std::size_t write_inner(const GgufWriting& out) {
  require_gguf_number(out, "mamba_expand", kExpansion);
  return kExpansion * gguf_heads(out).hidden;
}

void write_layer_heads(const GgufWriting& out, std::vector<bool> attends) {
  write_gguf_layer_heads(out, {.kv_heads = gguf_heads(out).kv_heads,
                               .attends = std::move(attends)});
}

std::size_t layers_of(const GgufWriting& out) {
  return out.config.size("num_hidden_layers").value_or(0);
}

// --- Jamba

constexpr Names kNormsOfMixers[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.final_layernorm"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.pre_ff_layernorm"}};
constexpr Names kJambaParts[] = {
    {"blk.{}.ssm_in", "model.layers.{}.mamba.in_proj"},
    {"blk.{}.ssm_conv1d", "model.layers.{}.mamba.conv1d", Change::kTaps},
    {"blk.{}.ssm_x", "model.layers.{}.mamba.x_proj"},
    {"blk.{}.ssm_dt", "model.layers.{}.mamba.dt_proj"},
    {"blk.{}.ssm_dt_norm", "model.layers.{}.mamba.dt_layernorm"},
    {"blk.{}.ssm_b_norm", "model.layers.{}.mamba.b_layernorm"},
    {"blk.{}.ssm_c_norm", "model.layers.{}.mamba.c_layernorm"},
    {"blk.{}.ssm_a", "model.layers.{}.mamba.A_log", Change::kMinusExp, true},
    {"blk.{}.ssm_d", "model.layers.{}.mamba.D", Change::kNone, true},
    {"blk.{}.ssm_out", "model.layers.{}.mamba.out_proj"},
    {"blk.{}.ffn_gate_inp", "model.layers.{}.feed_forward.router"},
    {"blk.{}.ffn_gate_exps",
     "model.layers.{}.feed_forward.experts.{e}.gate_proj"},
    {"blk.{}.ffn_up_exps", "model.layers.{}.feed_forward.experts.{e}.up_proj"},
    {"blk.{}.ffn_down_exps",
     "model.layers.{}.feed_forward.experts.{e}.down_proj"}};
constexpr Names kFeedForward[] = {
    {"blk.{}.ffn_gate", "model.layers.{}.feed_forward.gate_proj"},
    {"blk.{}.ffn_up", "model.layers.{}.feed_forward.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.feed_forward.down_proj"}};
constexpr auto kJamba =
    joined(kNormsOfMixers, kAttention, kJambaParts, kFeedForward);

constexpr GgufKey kJambaSizes[] = {
    {"context_length", "max_position_embeddings", false, 262144},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"ssm.state_size", "mamba_d_state", false, 16},
    {"ssm.conv_kernel", "mamba_d_conv", false, 4}};
constexpr auto kJambaKeys = joined(kJambaSizes, kRms);

void read_period(const GgufReading& in, const std::string& what,
                 const std::vector<bool>& chosen, std::string_view key,
                 JsonFields& out) {
  const auto [period, offset] = gguf_period_of(chosen, in, key);
  out[what + "_layer_period"] = formatted("{}", period);
  out[what + "_layer_offset"] = formatted("{}", offset);
}

void read_jamba(const GgufReading& in, JsonFields& out) {
  const GgufLayerHeads heads = read_gguf_layer_heads(in);
  out["num_key_value_heads"] = formatted("{}", heads.kv_heads);
  read_period(in, "attn", heads.attends, "attention.head_count_kv", out);
  std::vector<bool> mixed;
  for (std::size_t l = 0; l < heads.attends.size(); ++l) {
    mixed.push_back(in.has(with_number("blk.{}.ffn_gate_inp.weight", l)));
  }
  const std::size_t experts = in.size("expert_count").value_or(0);
  out["num_experts"] = formatted("{}", std::max<std::size_t>(1, experts));
  if (experts > 1) {
    out["num_experts_per_tok"] =
        formatted("{}", in.require_size("expert_used_count"));
    read_period(in, "expert", mixed, "expert_count", out);
  }
  const std::size_t hidden = in.require_size("embedding_length");
  const std::size_t inner = in.require_size("ssm.inner_size");
  if (hidden == 0 || inner % hidden != 0) {
    unsupported_gguf_key(in, "ssm.inner_size", "a multiple of the width");
  }
  out["mamba_expand"] = formatted("{}", inner / hidden);
  out["mamba_dt_rank"] = formatted("{}", in.require_size("ssm.time_step_rank"));
  out["mamba_proj_bias"] = "false";
  out["mamba_conv_bias"] = "true";
}

void write_jamba(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  refuse_gguf_flag(out, "mamba_proj_bias", false);
  refuse_gguf_flag(out, "mamba_conv_bias", true);
  const std::size_t hidden = gguf_heads(out).hidden;
  out.size("ssm.inner_size", write_inner(out));
  const bool automatic = config.is_text("mamba_dt_rank");
  const auto rank = automatic ? std::nullopt : config.size("mamba_dt_rank");
  out.size("ssm.time_step_rank", rank.value_or((hidden + 15) / 16));
  const std::size_t period = config.size("attn_layer_period").value_or(8);
  const std::size_t offset = config.size("attn_layer_offset").value_or(4);
  if (period == 0) config.invalid("attn_layer_period", "a size above 0");
  std::vector<bool> attends;
  for (std::size_t l = 0; l < layers_of(out); ++l) {
    attends.push_back(l % period == offset);
  }
  write_layer_heads(out, std::move(attends));
  const std::size_t experts = config.size("num_experts").value_or(16);
  if (experts <= 1) return;
  out.size("expert_count", experts);
  out.size("expert_used_count", config.size("num_experts_per_tok").value_or(2));
}

// --- Granite 4, whose layers may all be of one kind

constexpr Names kGraniteMlp[] = {
    {"blk.{}.ffn_gate", "model.layers.{}.shared_mlp.input_linear",
     Change::kUpperHalf},
    {"blk.{}.ffn_up", "model.layers.{}.shared_mlp.input_linear",
     Change::kLowerHalf},
    {"blk.{}.ffn_down", "model.layers.{}.shared_mlp.output_linear"}};
constexpr auto kGraniteHybrid =
    joined(kEnds, kNorms, kTurnedAttention, kMixer, kGraniteMlp);
constexpr auto kGraniteHybridMoe =
    joined(kEnds, kNorms, kTurnedAttention, kMixer, kGraniteExperts);

constexpr GgufKey kHybridSizes[] = {
    {"context_length", "max_position_embeddings", false, 2048},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"attention.head_count", "num_attention_heads"}};
constexpr auto kGraniteHybridKeys = joined(kHybridSizes, kRms, kGraniteScales);

constexpr std::string_view kTurns = "rope.scaling.finetuned";

bool has_experts(const GgufReading& in) {
  return in.size("expert_count").value_or(0) > 0;
}

bool asks_for_experts(const ConfigReader& config) {
  return config.size("num_local_experts").value_or(8) > 0;
}

std::vector<bool> granite_layers(const ConfigReader& config) {
  const auto types = config.texts("layer_types");
  std::vector<bool> attends;
  for (std::size_t l = 0; l < config.size("num_hidden_layers").value_or(0);
       ++l) {
    attends.push_back(l < types.size() && (types[l] == "attention" ||
                                           types[l] == "full_attention"));
  }
  return attends;
}

void read_expansion(const GgufReading& in, JsonFields& out) {
  const std::size_t hidden = in.require_size("embedding_length");
  const std::size_t inner = in.require_size("ssm.inner_size");
  if (hidden == 0 || inner % hidden != 0) {
    unsupported_gguf_key(in, "ssm.inner_size", "a multiple of the width");
  }
  out["mamba_expand"] = formatted("{}", inner / hidden);
}

// Positions, and what stands behind attention or a mixer.
void read_granite_rest(const GgufReading& in, JsonFields& out) {
  const bool turns = in.flag(kTurns).value_or(true);
  out["position_embedding_type"] = turns ? "\"rope\"" : "\"nope\"";
  if (turns) read_gguf_rope(in, out);
  const bool mixed = has_experts(in);
  const char* const shared =
      mixed ? "expert_shared_feed_forward_length" : "feed_forward_length";
  out["shared_intermediate_size"] = formatted("{}", in.require_size(shared));
  out["num_local_experts"] =
      formatted("{}", in.size("expert_count").value_or(0));
  if (mixed) {
    out["num_experts_per_tok"] =
        formatted("{}", in.require_size("expert_used_count"));
    out["intermediate_size"] =
        formatted("{}", in.require_size("feed_forward_length"));
  }
}

void write_granite_rest(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  const bool turns = config.text("position_embedding_type") == "rope";
  out.flag(kTurns, turns);
  if (turns) {
    const std::size_t head_dim = gguf_heads(out).head_dim;
    out.size("rope.dimension_count", head_dim);
    write_gguf_rope(out, head_dim, 10000);
  }
  const std::size_t shared =
      config.size("shared_intermediate_size").value_or(1024);
  if (!asks_for_experts(config)) {
    out.size("feed_forward_length", shared);
    return;
  }
  out.size("feed_forward_length",
           config.size("intermediate_size").value_or(11008));
  out.size("expert_shared_feed_forward_length", shared);
  out.size("expert_count", config.size("num_local_experts").value_or(8));
  out.size("expert_used_count", config.size("num_experts_per_tok").value_or(2));
}

void read_granite_hybrid(const GgufReading& in, JsonFields& out) {
  const GgufLayerHeads heads = read_gguf_layer_heads(in);
  nlohmann::json types = nlohmann::json::array();
  bool bias = false;
  for (std::size_t l = 0; l < heads.attends.size(); ++l) {
    types.push_back(heads.attends[l] ? "attention" : "mamba");
    bias |= in.has(with_number("blk.{}.attn_q.bias", l));
  }
  out["layer_types"] = types.dump();
  out["num_key_value_heads"] = formatted("{}", heads.kv_heads);
  out["attention_bias"] = json_flag(bias);
  read_granite_rest(in, out);
  read_gguf_mixer(in, out);
  read_expansion(in, out);
}

void write_granite_hybrid(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  write_layer_heads(out, granite_layers(out.config));
  write_gguf_mixer(out, write_inner(out));
  write_granite_rest(out);
}

// --- Granite 4 without mixers, to llama.cpp a Granite of before

constexpr auto kGraniteDense =
    joined(kEnds, kNorms, kTurnedAttention, kGraniteMlp);
constexpr auto kGraniteMixture =
    joined(kEnds, kNorms, kTurnedAttention, kGraniteExperts);
// What tells it from those, which have other names for the same in the folder.
constexpr std::string_view kOwnType = "llmpress.model_type";
constexpr std::string_view kHybridType = "granitemoehybrid";

bool is_hybrid_type(const GgufReading& in) {
  return in.file.metadata().text(kOwnType) == kHybridType;
}

bool all_attend(const ConfigReader& config) {
  return std::ranges::count(granite_layers(config), false) == 0;
}

bool is_dense_without_mixers(const ConfigReader& config) {
  return all_attend(config) && !asks_for_experts(config);
}

bool is_mixture_without_mixers(const ConfigReader& config) {
  return all_attend(config) && asks_for_experts(config);
}

void read_granite_attention(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  out.erase("head_dim");
  read_gguf_attention_bias(in, out);
  nlohmann::json types(in.require_size("block_count"), "attention");
  out["layer_types"] = types.dump();
  out["mamba_n_heads"] = "1";  // any that fit
  read_granite_rest(in, out);
}

void write_granite_attention(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  out.metadata.set(std::string(kOwnType), std::string(kHybridType));
  out.size("attention.head_count_kv", gguf_heads(out).kv_heads);
  write_granite_rest(out);
}

// --- Bamba, to llama.cpp a Granite without its factors

constexpr auto kBamba =
    joined(kNormsOfMixers, kTurnedAttention, kMixer, kFeedForward);
constexpr GgufKey kBambaFfn[] = {
    {"feed_forward_length", "intermediate_size", false, 14336}};
constexpr auto kBambaKeys = joined(kHybridSizes, kRmsOfOlmo, kBambaFfn);

// Its heads turn in half.
bool turns_half(const GgufReading& in) {
  return !has_experts(in) && in.flag(kTurns).value_or(true) &&
         in.size("rope.dimension_count") == gguf_head_dim(in) / 2;
}

void read_bamba(const GgufReading& in, JsonFields& out) {
  const GgufLayerHeads heads = read_gguf_layer_heads(in);
  nlohmann::json attending = nlohmann::json::array();
  for (std::size_t l = 0; l < heads.attends.size(); ++l) {
    if (heads.attends[l]) attending.push_back(l);
  }
  const std::size_t first = attending[0].get<std::size_t>();
  out["attention_bias"] =
      json_flag(in.has(with_number("blk.{}.attn_q.bias", first)));
  out["mlp_bias"] = json_flag(in.has("blk.0.ffn_up.bias"));
  out["attn_layer_indices"] = attending.dump();
  out["num_key_value_heads"] = formatted("{}", heads.kv_heads);
  read_gguf_rope(in, out);
  read_gguf_mixer(in, out);
  read_expansion(in, out);
}

void write_bamba(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  std::vector<bool> attends(layers_of(out), false);
  for (const std::size_t l : config.sizes("attn_layer_indices")) {
    if (l < attends.size()) attends[l] = true;
  }
  write_layer_heads(out, std::move(attends));
  write_gguf_mixer(out, write_inner(out));
  out.flag(kTurns, true);
  const std::size_t turned = gguf_heads(out).head_dim / 2;
  out.size("rope.dimension_count", turned);
  write_gguf_rope(out, turned, 10000);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "jamba",
                     .model_type = "jamba",
                     .tensors = kJamba,
                     .keys = kJambaKeys,
                     .read = read_jamba,
                     .write = write_jamba,
                     .hf_class = "JambaForCausalLM"},
    GgufArchitecture{.name = "granite",
                     .model_type = kHybridType,
                     .tensors = kGraniteDense,
                     .keys = kGraniteHybridKeys,
                     .read = read_granite_attention,
                     .write = write_granite_attention,
                     .fits = is_hybrid_type,
                     .written = is_dense_without_mixers,
                     .hf_class = "GraniteMoeHybridForCausalLM"},
    GgufArchitecture{.name = "granitemoe",
                     .model_type = kHybridType,
                     .tensors = kGraniteMixture,
                     .keys = kGraniteHybridKeys,
                     .read = read_granite_attention,
                     .write = write_granite_attention,
                     .fits = is_hybrid_type,
                     .written = is_mixture_without_mixers,
                     .hf_class = "GraniteMoeHybridForCausalLM"},
    GgufArchitecture{.name = "granitehybrid",
                     .model_type = "bamba",
                     .tensors = kBamba,
                     .keys = kBambaKeys,
                     .read = read_bamba,
                     .write = write_bamba,
                     .fits = turns_half,
                     .hf_class = "BambaForCausalLM"},
    GgufArchitecture{.name = "granitehybrid",
                     .model_type = "granitemoehybrid",
                     .tensors = kGraniteHybridMoe,
                     .keys = kGraniteHybridKeys,
                     .read = read_granite_hybrid,
                     .write = write_granite_hybrid,
                     .fits = has_experts,
                     .written = asks_for_experts,
                     .hf_class = "GraniteMoeHybridForCausalLM"},
    GgufArchitecture{.name = "granitehybrid",
                     .model_type = "granitemoehybrid",
                     .tensors = kGraniteHybrid,
                     .keys = kGraniteHybridKeys,
                     .read = read_granite_hybrid,
                     .write = write_granite_hybrid,
                     .hf_class = "GraniteMoeHybridForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> hybrid_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

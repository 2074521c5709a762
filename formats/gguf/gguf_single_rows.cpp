// Rows of the table of architectures (gguf_architecture.h): Nemotron-H, whose
// layers are one part each: a mixer, attention, an MLP or a mixture of experts.
#include <array>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_expert_keys.h"
#include "formats/gguf/gguf_hybrid_keys.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kParts[] = {
    {"token_embd", "backbone.embeddings"},
    {"output_norm", "backbone.norm_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "backbone.layers.{}.norm"},
    {"blk.{}.ssm_in", "backbone.layers.{}.mixer.in_proj"},
    {"blk.{}.ssm_conv1d", "backbone.layers.{}.mixer.conv1d", Change::kTaps},
    {"blk.{}.ssm_dt.bias", "backbone.layers.{}.mixer.dt_bias", Change::kNone,
     true},
    {"blk.{}.ssm_a", "backbone.layers.{}.mixer.A_log", Change::kMinusExpColumn,
     true},
    {"blk.{}.ssm_d", "backbone.layers.{}.mixer.D", Change::kColumn, true},
    {"blk.{}.ssm_norm", "backbone.layers.{}.mixer.norm", Change::kGroups},
    {"blk.{}.ssm_out", "backbone.layers.{}.mixer.out_proj"},
    {"blk.{}.attn_q", "backbone.layers.{}.mixer.q_proj"},
    {"blk.{}.attn_k", "backbone.layers.{}.mixer.k_proj"},
    {"blk.{}.attn_v", "backbone.layers.{}.mixer.v_proj"},
    {"blk.{}.attn_output", "backbone.layers.{}.mixer.o_proj"},
    {"blk.{}.ffn_up", "backbone.layers.{}.mixer.up_proj"},
    {"blk.{}.ffn_down", "backbone.layers.{}.mixer.down_proj"},
    {"blk.{}.ffn_gate_inp", "backbone.layers.{}.mixer.gate"},
    {"blk.{}.exp_probs_b.bias",
     "backbone.layers.{}.mixer.gate.e_score_correction_bias", Change::kNone,
     true},
    {"blk.{}.ffn_up_exps", "backbone.layers.{}.mixer.experts.{e}.up_proj"},
    {"blk.{}.ffn_down_exps", "backbone.layers.{}.mixer.experts.{e}.down_proj"},
    {"blk.{}.ffn_up_shexp", "backbone.layers.{}.mixer.shared_experts.up_proj"},
    {"blk.{}.ffn_down_shexp",
     "backbone.layers.{}.mixer.shared_experts.down_proj"},
    {"blk.{}.ffn_latent_down", "backbone.layers.{}.mixer.fc1_latent_proj"},
    {"blk.{}.ffn_latent_up", "backbone.layers.{}.mixer.fc2_latent_proj"}};

constexpr GgufKey kKeys[] = {
    {"context_length", "max_position_embeddings", false, 4096},
    {"embedding_length", "hidden_size", false, 4096},
    {"attention.head_count", "num_attention_heads", false, 32},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5},
    {"attention.layer_norm_rms_epsilon", "layer_norm_epsilon", true, 1e-5}};
constexpr GgufKey kExpertKeys[] = {
    {"expert_count", "n_routed_experts", false, 8},
    {"expert_used_count", "num_experts_per_tok", false, 2},
    {"expert_shared_count", "n_shared_experts", false, 1},
    {"expert_feed_forward_length", "moe_intermediate_size", false, 7688},
    {"expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size",
     false, 7688},
    {"expert_weights_scale", "routed_scaling_factor", true, 1}};
constexpr auto kMoeKeys = joined(kKeys, kExpertKeys);

// One letter a layer: M mixer, * attention, E experts, - MLP.
std::string pattern_of(const ConfigReader& config) {
  std::string pattern;
  for (const char* key : {"layer_types", "layers_block_type"}) {
    const auto types = config.texts(key);
    if (!types.empty()) pattern.clear();
    for (const std::string& type : types) {
      pattern += type == "moe"                                   ? 'E'
                 : type == "mlp"                                 ? '-'
                 : type == "mamba" || type == "linear_attention" ? 'M'
                                                                 : '*';
    }
  }
  if (!pattern.empty()) return pattern;
  return config.text("hybrid_override_pattern").value_or("ME*-");
}

bool has_experts(const ConfigReader& config) {
  return pattern_of(config).find('E') != std::string::npos;
}

void read_mixers(const GgufReading& in, JsonFields& out) {
  JsonFields mixer;
  read_gguf_mixer(in, mixer);
  out["mamba_num_heads"] = mixer["mamba_n_heads"];
  out["mamba_head_dim"] = mixer["mamba_d_head"];
  out["n_groups"] = mixer["mamba_n_groups"];
  out["ssm_state_size"] = mixer["mamba_d_state"];
  out["conv_kernel"] = mixer["mamba_d_conv"];
  out["use_bias"] = "false";
  out["use_conv_bias"] = "true";
}

void read_nemotron_h(const GgufReading& in, JsonFields& out) {
  const GgufLayerHeads heads = read_gguf_layer_heads(in);
  constexpr std::string_view kFfn = "feed_forward_length";
  const std::size_t layers = heads.attends.size();
  const auto widths = in.file.metadata().numbers(in.key(kFfn));
  if (widths.size() != layers) {
    unsupported_gguf_key(in, kFfn, "an entry for each layer");
  }
  const bool mixed = in.size("expert_count").value_or(0) > 0;
  std::string pattern;
  double width = 0;
  bool bias = false;
  for (std::size_t l = 0; l < layers; ++l) {
    const bool inner = widths[l] != 0;
    pattern += inner ? (mixed ? 'E' : '-') : heads.attends[l] ? '*' : 'M';
    if (!inner) continue;
    if (width != 0 && widths[l] != width) {
      unsupported_gguf_key(in, kFfn, "one number and 0");
    }
    width = widths[l];
    bias |= in.has(with_number("blk.{}.ffn_up.bias", l));
  }
  out["hybrid_override_pattern"] = json_text(pattern);
  out["num_hidden_layers"] = formatted("{}", layers);
  out["num_key_value_heads"] = formatted("{}", heads.kv_heads);
  out["head_dim"] = formatted("{}", gguf_head_dim(in));
  out["mlp_bias"] = json_flag(bias);
  out["mlp_hidden_act"] = "\"relu2\"";
  if (!mixed && width >= 1 && width <= 1e9) {
    out["intermediate_size"] = formatted("{}", static_cast<std::size_t>(width));
  }
  read_mixers(in, out);
  if (!mixed) return;
  read_gguf_sigmoid(in, out);
  if (const auto latent = in.size("moe_latent_size"); latent && *latent > 0) {
    out["moe_latent_size"] = formatted("{}", *latent);
  }
}

void write_mixers(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "mamba_hidden_act", kSilu);
  refuse_gguf_flag(out, "use_bias", false);
  for (const char* key : {"mamba_conv_bias", "use_conv_bias"}) {
    refuse_gguf_flag(out, key, true);
  }
  const auto either = [&](const char* old_key, const char* key,
                          std::size_t usual) {
    return config.size(config.has(old_key) ? old_key : key).value_or(usual);
  };
  // transformers keeps steps above it, llama.cpp has no such bound: what it is
  // without the key is what is read back.
  constexpr double kSmallestStep = 0.001;
  for (const char* key : {"mamba_dt_min", "time_step_min"}) {
    if (config.number(key).value_or(kSmallestStep) == kSmallestStep) continue;
    config.unsupported(key, "0.001");
  }
  const std::size_t heads = config.size("mamba_num_heads").value_or(128);
  out.size("ssm.inner_size",
           heads * config.size("mamba_head_dim").value_or(64));
  out.size("ssm.time_step_rank", heads);
  out.size("ssm.group_count", either("mamba_n_groups", "n_groups", 8));
  out.size("ssm.state_size", config.size("ssm_state_size").value_or(128));
  out.size("ssm.conv_kernel", either("mamba_d_conv", "conv_kernel", 4));
}

void write_nemotron_h(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  const std::string pattern = pattern_of(config);
  const bool mixed = has_experts(config);
  if (mixed && pattern.find('-') != std::string::npos) {
    config.unsupported("hybrid_override_pattern",
                       "experts or MLPs: llama.cpp has not both in a model");
  }
  require_gguf_activation(out, "mlp_hidden_act", {"relu2"});
  write_mixers(out);
  out.size("block_count", pattern.size());
  const std::size_t width =
      mixed ? config.size("moe_intermediate_size").value_or(7688)
            : config.size("intermediate_size").value_or(21504);
  GgufLayerHeads heads{.kv_heads =
                           config.size("num_key_value_heads").value_or(8)};
  std::vector<std::uint32_t> widths;
  for (const char letter : pattern) {
    heads.attends.push_back(letter == '*');
    const bool inner = letter == '-' || letter == 'E';
    widths.push_back(inner ? static_cast<std::uint32_t>(width) : 0);
  }
  write_gguf_layer_heads(out, heads);
  out.metadata.set_array(std::string(out.architecture) + ".feed_forward_length",
                         widths);
  const std::size_t head_dim = config.size("head_dim").value_or(128);
  out.size("attention.key_length", head_dim);
  out.size("attention.value_length", head_dim);
  if (!mixed) return;
  refuse_gguf_flag(out, "mlp_bias", false);
  write_gguf_sigmoid(out);
  if (const auto latent = config.size("moe_latent_size")) {
    out.size("moe_latent_size", *latent);
  }
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "nemotron_h_moe",
                     .model_type = "nemotron_h",
                     .tensors = kParts,
                     .keys = kMoeKeys,
                     .read = read_nemotron_h,
                     .write = write_nemotron_h,
                     .written = has_experts,
                     .hf_class = "NemotronHForCausalLM"},
    GgufArchitecture{.name = "nemotron_h",
                     .model_type = "nemotron_h",
                     .tensors = kParts,
                     .keys = kKeys,
                     .read = read_nemotron_h,
                     .write = write_nemotron_h,
                     .hf_class = "NemotronHForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> single_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

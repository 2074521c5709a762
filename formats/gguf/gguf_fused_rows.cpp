// Rows of the table of architectures (gguf_architecture.h): decoders whose
// queries, keys and values are one Linear, with norms that have a bias.
#include <array>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

// llama.cpp computes GELU by tanh where these models ask for erf: nothing in a
// file says which.
const std::initializer_list<std::string_view> kGelu{"gelu", "gelu_new",
                                                    "gelu_pytorch_tanh"};

// --- Falcon

constexpr Names kFalcon[] = {
    {"token_embd", "transformer.word_embeddings"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.input_layernorm"},
    {"blk.{}.attn_qkv", "transformer.h.{}.self_attention.query_key_value",
     Change::kGroupedHeads},
    {"blk.{}.attn_output", "transformer.h.{}.self_attention.dense"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.dense_h_to_4h"},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.dense_4h_to_h"}};
// A norm for each part: llama.cpp gives the MLP what the first norm makes.
constexpr Names kFalconNorms[] = {
    {"blk.{}.attn_norm", "transformer.h.{}.ln_mlp"},
    {"blk.{}.attn_norm_2", "transformer.h.{}.ln_attn"}};
constexpr Names kFalconRest[] = {kFalcon[0], kFalcon[1], kFalcon[2], kFalcon[4],
                                 kFalcon[5], kFalcon[6], kFalcon[7]};
constexpr auto kFalcon40b = joined(kFalconNorms, kFalconRest);

constexpr GgufKey kFalconKeys[] = {
    {"context_length", "max_position_embeddings", false, 2048},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5}};

bool has_two_norms(const GgufReading& in) {
  return in.has("blk.0.attn_norm_2.weight");
}

bool asks_for_two_norms(const ConfigReader& config) {
  const bool grouped = config.flag("new_decoder_architecture").value_or(false);
  return grouped && config.size("num_ln_in_parallel_attn").value_or(2) == 2;
}

void read_falcon(const GgufReading& in, JsonFields& out) {
  const bool two = has_two_norms(in);
  JsonFields heads;
  read_gguf_heads(in, heads);
  const bool one_key = heads["num_key_value_heads"] == "1" && !two;
  out["new_decoder_architecture"] = json_flag(!one_key);
  out["multi_query"] = json_flag(one_key);
  out["parallel_attn"] = "true";
  out["num_kv_heads"] = heads["num_key_value_heads"];
  if (one_key) out.erase("num_kv_heads");
  if (!one_key) out["num_ln_in_parallel_attn"] = two ? "2" : "1";
  out["ffn_hidden_size"] =
      formatted("{}", in.require_size("feed_forward_length"));
  out["bias"] = "false";
  out["alibi"] = "false";
  out["activation"] = "\"gelu\"";
  read_gguf_rope(in, out);
}

void write_falcon(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "activation", kGelu);
  refuse_gguf_flag(out, "bias", false);
  refuse_gguf_flag(out, "parallel_attn", true);
  refuse_gguf_flag(out, "alibi", false);
  const std::size_t hidden = config.size("hidden_size").value_or(0);
  const std::size_t heads = config.size("num_attention_heads").value_or(0);
  if (heads == 0) config.invalid("num_attention_heads", "a size above 0");
  const bool one_key =
      !config.flag("new_decoder_architecture").value_or(false) &&
      config.flag("multi_query").value_or(true);
  out.size("attention.head_count_kv",
           one_key ? 1 : config.size("num_kv_heads").value_or(heads));
  out.size("feed_forward_length",
           config.size("ffn_hidden_size").value_or(4 * hidden));
  out.size("rope.dimension_count", hidden / heads);
  write_gguf_rope(out, hidden / heads, 10000);
}

// --- GPT-NeoX

constexpr Names kGptNeox[] = {
    {"token_embd", "gpt_neox.embed_in"},
    {"output_norm", "gpt_neox.final_layer_norm"},
    {"output", "embed_out"},
    {"blk.{}.attn_norm", "gpt_neox.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "gpt_neox.layers.{}.post_attention_layernorm"},
    {"blk.{}.attn_qkv", "gpt_neox.layers.{}.attention.query_key_value",
     Change::kGroupedHeads},
    {"blk.{}.attn_output", "gpt_neox.layers.{}.attention.dense"},
    {"blk.{}.ffn_up", "gpt_neox.layers.{}.mlp.dense_h_to_4h"},
    {"blk.{}.ffn_down", "gpt_neox.layers.{}.mlp.dense_4h_to_h"}};

constexpr auto kGptNeoxKeys = joined(kSizes, kLayerNorm);

void read_gptneox(const GgufReading& in, JsonFields& out) {
  JsonFields heads;
  const double part = read_partial_gguf_heads(in, heads);
  out["rotary_pct"] = json_number(part);
  read_gguf_rope(in, out);
  if (out.contains("rope_theta")) {
    out["rotary_emb_base"] = out["rope_theta"];
    out.erase("rope_theta");
  }
  out["use_parallel_residual"] =
      json_flag(in.flag("use_parallel_residual").value_or(true));
  out["hidden_act"] = "\"gelu\"";
}

void write_gptneox(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kGelu);
  refuse_gguf_flag(out, "attention_bias", true);
  require_gguf_tied(out, false);
  out.flag("use_parallel_residual",
           out.config.flag("use_parallel_residual").value_or(true));
  const GgufHeads h = gguf_heads(out);
  const auto rope = out.config.object("rope_parameters");
  const auto partial =
      rope ? rope->number("partial_rotary_factor") : std::nullopt;
  const double part =
      partial.value_or(out.config.number("rotary_pct").value_or(0.25));
  const auto turned =
      static_cast<std::size_t>(part * static_cast<double>(h.head_dim));
  out.size("attention.head_count_kv", h.heads);
  out.size("rope.dimension_count", turned);
  write_gguf_rope(out, turned,
                  out.config.number("rotary_emb_base").value_or(10000));
}

// --- BLOOM

constexpr Names kBloom[] = {
    {"token_embd", "transformer.word_embeddings"},
    {"token_embd_norm", "transformer.word_embeddings_layernorm"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "transformer.h.{}.post_attention_layernorm"},
    {"blk.{}.attn_qkv", "transformer.h.{}.self_attention.query_key_value",
     Change::kGroupedHeads},
    {"blk.{}.attn_output", "transformer.h.{}.self_attention.dense"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.dense_h_to_4h"},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.dense_4h_to_h"}};

constexpr GgufKey kBloomKeys[] = {
    {"embedding_length", "hidden_size", false, 64},
    {"block_count", "n_layer", false, 2},
    {"attention.head_count", "n_head", false, 8},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5}};

void read_bloom(const GgufReading& in, JsonFields& out) {
  out["seq_length"] = formatted("{}", in.require_size("context_length"));
}

void write_bloom(const GgufWriting& out) {
  refuse_gguf_flag(out, "apply_residual_connection_post_layernorm", false);
  const std::size_t hidden = out.config.size("hidden_size").value_or(64);
  out.size("context_length", out.config.size("seq_length").value_or(2048));
  out.size("feed_forward_length", 4 * hidden);
  out.size("attention.head_count_kv", out.config.size("n_head").value_or(8));
}

// --- MPT

constexpr Names kMpt[] = {
    {"token_embd", "transformer.wte"},
    {"output_norm", "transformer.norm_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.blocks.{}.norm_1"},
    {"blk.{}.ffn_norm", "transformer.blocks.{}.norm_2"},
    {"blk.{}.attn_qkv", "transformer.blocks.{}.attn.Wqkv"},
    {"blk.{}.attn_output", "transformer.blocks.{}.attn.out_proj"},
    {"blk.{}.ffn_up", "transformer.blocks.{}.ffn.up_proj"},
    {"blk.{}.ffn_down", "transformer.blocks.{}.ffn.down_proj"}};

constexpr GgufKey kMptKeys[] = {
    {"context_length", "max_seq_len", false, 2048},
    {"embedding_length", "d_model", false, 2048},
    {"block_count", "n_layers", false, 24},
    {"attention.head_count", "n_heads", false, 16},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5}};

void read_mpt(const GgufReading& in, JsonFields& out) {
  const std::size_t hidden = in.require_size("embedding_length");
  out["expansion_ratio"] =
      formatted("{}", in.require_size("feed_forward_length") / hidden);
  std::string attention =
      formatted("{{\"alibi\": true, \"alibi_bias_max\": {}",
                in.number("attention.max_alibi_bias").value_or(0));
  if (const auto clip = in.number("attention.clamp_kqv"); clip && *clip > 0) {
    attention += ", \"clip_qkv\": " + json_number(*clip);
  }
  out["attn_config"] = attention + "}";
}

void write_mpt(const GgufWriting& out) {
  const std::size_t hidden = out.config.size("d_model").value_or(2048);
  out.size("feed_forward_length",
           hidden * out.config.size("expansion_ratio").value_or(4));
  const auto attention = out.config.object("attn_config");
  const auto number = [&](std::string_view key) {
    return attention ? attention->number(key) : std::nullopt;
  };
  if (number("softmax_scale")) {
    attention->unsupported("softmax_scale", "none");
  }
  const double bias = number("alibi_bias_max").value_or(8);
  if (!(bias > 0)) attention->unsupported("alibi_bias_max", "above 0");
  out.number("attention.max_alibi_bias", bias);
  if (const auto clip = number("clip_qkv")) {
    out.number("attention.clamp_kqv", *clip);
  }
}

// --- StarCoder, whose queries share one key and value unless it says otherwise

constexpr Names kStarcoder[] = {
    {"token_embd", "transformer.wte"},
    {"position_embd", "transformer.wpe"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.ln_1"},
    {"blk.{}.ffn_norm", "transformer.h.{}.ln_2"},
    {"blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn", Change::kGroupedHeads},
    {"blk.{}.attn_output", "transformer.h.{}.attn.c_proj"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc"},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj"}};

constexpr GgufKey kStarcoderKeys[] = {
    {"context_length", "n_positions", false, 1024},
    {"embedding_length", "n_embd", false, 768},
    {"block_count", "n_layer", false, 12},
    {"attention.head_count", "n_head", false, 12},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", true, 1e-5}};

void read_starcoder(const GgufReading& in, JsonFields& out) {
  const std::size_t heads = gguf_heads(in);
  const std::size_t keys = in.size("attention.head_count_kv").value_or(heads);
  if (keys != 1 && keys != heads) {
    unsupported_gguf_key(in, "attention.head_count_kv", "one, or all heads");
  }
  out["multi_query"] = json_flag(keys == 1);
  out["n_inner"] = formatted("{}", in.require_size("feed_forward_length"));
  out["activation_function"] = "\"gelu_pytorch_tanh\"";
}

void write_starcoder(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "activation_function",
                          {"gelu_pytorch_tanh", "gelu_new", "gelu_fast"});
  refuse_gguf_flag(out, "scale_attn_weights", true);
  const std::size_t heads = config.size("n_head").value_or(12);
  const std::size_t hidden = config.size("n_embd").value_or(768);
  const bool shared = config.flag("multi_query").value_or(true);
  out.size("attention.head_count_kv", shared ? 1 : heads);
  out.size("feed_forward_length", config.size("n_inner").value_or(4 * hidden));
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "falcon",
                     .model_type = "falcon",
                     .tensors = kFalcon40b,
                     .keys = kFalconKeys,
                     .read = read_falcon,
                     .write = write_falcon,
                     .fits = has_two_norms,
                     .written = asks_for_two_norms,
                     .tied = true,
                     .hf_class = "FalconForCausalLM"},
    GgufArchitecture{.name = "falcon",
                     .model_type = "falcon",
                     .tensors = kFalcon,
                     .keys = kFalconKeys,
                     .read = read_falcon,
                     .write = write_falcon,
                     .tied = true,
                     .hf_class = "FalconForCausalLM"},
    GgufArchitecture{.name = "gptneox",
                     .model_type = "gpt_neox",
                     .tensors = kGptNeox,
                     .keys = kGptNeoxKeys,
                     .read = read_gptneox,
                     .write = write_gptneox,
                     .hf_class = "GPTNeoXForCausalLM"},
    GgufArchitecture{.name = "bloom",
                     .model_type = "bloom",
                     .tensors = kBloom,
                     .keys = kBloomKeys,
                     .read = read_bloom,
                     .write = write_bloom,
                     .tied = true,
                     .hf_class = "BloomForCausalLM"},
    GgufArchitecture{.name = "starcoder",
                     .model_type = "gpt_bigcode",
                     .tensors = kStarcoder,
                     .keys = kStarcoderKeys,
                     .read = read_starcoder,
                     .write = write_starcoder,
                     .tied = true,
                     .hf_class = "GPTBigCodeForCausalLM"},
    GgufArchitecture{.name = "mpt",
                     .model_type = "mpt",
                     .tensors = kMpt,
                     .keys = kMptKeys,
                     .read = read_mpt,
                     .write = write_mpt,
                     .tied = true,
                     .hf_class = "MptForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> fused_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

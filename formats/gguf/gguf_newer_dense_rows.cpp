// Rows of the table of architectures (gguf_architecture.h): dense decoders
// of Baidu, Zhipu, ByteDance, LG and Mistral.
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr auto kLlamaLike = joined(kEnds, kNorms, kTurnedAttention, kMlp);
constexpr auto kPlain = joined(kEnds, kNorms, kAttention, kMlp);

constexpr auto kRmsKeys = joined(kSizes, kRmsOfOlmo);

void read_plain(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
}

// --- Ernie 4.5, GLM, Seed-OSS, EXAONE

void read_ernie(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  out["use_bias"] = json_flag(in.has("blk.0.attn_output.bias"));
}

void write_ernie(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "use_bias", false);
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
}

constexpr Names kGlmBlock[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_up", "model.layers.{}.mlp.gate_up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"}};
constexpr auto kGlm = joined(kEnds, kGlmBlock, kAttention);
constexpr GgufKey kGlmRms[] = {
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 1.5625e-7}};
constexpr auto kGlmKeys = joined(kSizes, kGlmRms);

void read_glm(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
}

void write_glm(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  refuse_gguf_rope_scaling(out);
  write_partial_gguf_rope(out, 0.5);
}

constexpr Names kSeedNorms[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.post_attention_norm", "model.layers.{}.post_attention_layernorm"}};
constexpr auto kSeed = joined(kEnds, kSeedNorms, kAttention, kMlp);
constexpr auto kSeedKeys = joined(kSizes, kRms);

void read_seed(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  read_gguf_attention_bias(in, out);
}

void write_seed(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_out_bias", false);
  refuse_gguf_flag(out, "mlp_bias", false);
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
}

constexpr Names kExaone[] = {
    {"token_embd", "transformer.wte"},
    {"output_norm", "transformer.ln_f"},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "transformer.h.{}.ln_1"},
    {"blk.{}.ffn_norm", "transformer.h.{}.ln_2"},
    {"blk.{}.attn_q", "transformer.h.{}.attn.attention.q_proj"},
    {"blk.{}.attn_k", "transformer.h.{}.attn.attention.k_proj"},
    {"blk.{}.attn_v", "transformer.h.{}.attn.attention.v_proj"},
    {"blk.{}.attn_output", "transformer.h.{}.attn.attention.out_proj"},
    {"blk.{}.ffn_gate", "transformer.h.{}.mlp.c_fc_0"},
    {"blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc_1"},
    {"blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj"}};
constexpr GgufKey kExaoneKeys[] = {
    {"context_length", "max_position_embeddings", false, 2048},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"}};

void read_exaone(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  out["num_layers"] = formatted("{}", in.require_size("block_count"));
  out["layer_norm_epsilon"] =
      json_number(in.number("attention.layer_norm_rms_epsilon").value_or(1e-5));
  out["activation_function"] = "\"silu\"";
}

void write_exaone(const GgufWriting& out) {
  const ConfigReader& config = out.config;
  require_gguf_activation(out, "activation_function", kSilu);
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "mlp_bias", false);
  const auto newer = config.size("num_hidden_layers");
  const auto layers = config.size("num_layers");
  if (!layers && !newer) config.invalid("num_layers", "a size");
  out.size("block_count", layers ? *layers : *newer);
  out.number("attention.layer_norm_rms_epsilon",
             config.number("layer_norm_epsilon")
                 .value_or(config.number("rms_norm_eps").value_or(1e-5)));
  write_gguf_whole_rope(out);
}

// --- EXAONE 4

constexpr auto kExaone4 =
    joined(kEnds, kAttention, kHeadNorms, kNormsAfter, kMlp);
constexpr std::size_t kExaoneWindowed = 64;  // layers

void read_exaone4(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  const std::size_t layers = in.require_size("block_count");
  if (layers != kExaoneWindowed) {
    out["sliding_window"] = "null";
    return;
  }
  out["sliding_window"] =
      formatted("{}", in.size("attention.sliding_window").value_or(4096));
  out["layer_types"] =
      read_gguf_layer_types(in, "sliding_attention", "full_attention", 4);
}

void write_exaone4(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  require_gguf_square_heads(out);
  const ConfigReader& config = out.config;
  const std::size_t layers = config.size("num_hidden_layers").value_or(0);
  const auto window =
      config.is_null("sliding_window")
          ? std::nullopt
          : std::optional(config.size("sliding_window").value_or(4096));
  if (window.has_value() != (layers == kExaoneWindowed)) {
    config.unsupported(
        "sliding_window",
        window ? formatted("null: llama.cpp has a window with {} layers alone",
                           kExaoneWindowed)
               : formatted("a size: llama.cpp has a window with {} layers",
                           kExaoneWindowed));
  }
  if (window) {
    out.size("attention.sliding_window", *window);
    write_gguf_layer_types(out, "sliding_attention", 4);
  }
  write_gguf_whole_rope(out);
}

// --- Ministral 3

void read_ministral3(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  nlohmann::json rope{{"rope_type", "default"}};
  if (const auto scaling = out.find("rope_scaling"); scaling != out.end()) {
    rope = nlohmann::json::parse(scaling->second);
    out.erase(scaling);
  }
  const auto copy = [&](const char* gguf, const char* ours, double absent) {
    rope[ours] = in.number(gguf).value_or(absent);
  };
  copy("attention.temperature_scale", "llama_4_scaling_beta", 0);
  if (rope["rope_type"] == "yarn") {
    copy("rope.scaling.yarn_beta_fast", "beta_fast", 32);
    copy("rope.scaling.yarn_beta_slow", "beta_slow", 1);
    copy("rope.scaling.yarn_log_multiplier", "mscale_all_dim", 0);
    rope["mscale"] = 1.0;
  } else {
    rope["original_max_position_embeddings"] =
        in.size("rope.scaling.original_context_length")
            .value_or(in.require_size("context_length"));
  }
  rope["rope_theta"] = in.number("rope.freq_base").value_or(10000);
  out.erase("rope_theta");
  out["rope_parameters"] = rope.dump();
  out["sliding_window"] = "null";
}

void write_ministral3(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_window(out);
  const auto rope = out.config.object("rope_parameters");
  if (!rope) out.config.invalid("rope_parameters", "the rotary embedding");
  out.number("attention.temperature_scale",
             rope->number("llama_4_scaling_beta").value_or(0));
  const GgufHeads h = write_gguf_heads(out);
  out.size("rope.dimension_count", h.head_dim);
  if (rope->text("rope_type").value_or("default") == "yarn" &&
      rope->number("mscale").value_or(1) != 1) {
    rope->unsupported("mscale", "1, which llama.cpp takes");
  }
  if (const auto original = rope->size("original_max_position_embeddings")) {
    out.size("rope.scaling.original_context_length", *original);
  }
  write_gguf_rope_of(
      out, rope, h.head_dim, 1e4,
      {.betas = true,
       .log_multiplier = rope->number("mscale_all_dim").value_or(0)});
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "ernie4_5",
                     .model_type = "ernie4_5",
                     .tensors = kPlain,
                     .keys = kRmsKeys,
                     .read = read_ernie,
                     .write = write_ernie,
                     .head_dim = 128,
                     .rope_theta = 5e5,
                     .tied = true,
                     .hf_class = "Ernie4_5ForCausalLM"},
    GgufArchitecture{.name = "chatglm",
                     .model_type = "glm",
                     .tensors = kGlm,
                     .keys = kGlmKeys,
                     .read = read_glm,
                     .write = write_glm,
                     .head_dim = 128,
                     .hf_class = "GlmForCausalLM"},
    GgufArchitecture{.name = "seed_oss",
                     .model_type = "seed_oss",
                     .tensors = kSeed,
                     .keys = kSeedKeys,
                     .read = read_seed,
                     .write = write_seed,
                     .head_dim = 128,
                     .hf_class = "SeedOssForCausalLM"},
    GgufArchitecture{.name = "exaone",
                     .model_type = "exaone",
                     .tensors = kExaone,
                     .keys = kExaoneKeys,
                     .read = read_exaone,
                     .write = write_exaone,
                     .rope_theta = 5e5,
                     .hf_class = "ExaoneForCausalLM"},
    GgufArchitecture{.name = "exaone4",
                     .model_type = "exaone4",
                     .tensors = kExaone4,
                     .keys = kRmsKeys,
                     .read = read_exaone4,
                     .write = write_exaone4,
                     .hf_class = "Exaone4ForCausalLM"},
    GgufArchitecture{.name = "mistral3",
                     .model_type = "ministral3",
                     .tensors = kLlamaLike,
                     .keys = kRmsKeys,
                     .read = read_ministral3,
                     .write = write_ministral3,
                     .head_dim = 128,
                     .hf_class = "Ministral3ForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> newer_dense_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

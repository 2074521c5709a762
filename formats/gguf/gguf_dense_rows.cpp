// Rows of the table of architectures (gguf_architecture.h): further dense
// decoders.
#include <array>
#include <nlohmann/json.hpp>

#include "compress/core/formatted.h"
#include "formats/gguf/gguf_architecture.h"
#include "formats/gguf/gguf_key_parts.h"
#include "formats/gguf/gguf_name_lists.h"

namespace llmpress {
namespace {

using namespace gguf_lists;

constexpr Names kPlainMlp[] = {
    {"blk.{}.ffn_up", "model.layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "model.layers.{}.mlp.down_proj"}};

constexpr auto kRmsKeys = joined(kSizes, kRmsOfOlmo);
constexpr auto kLayerNormKeys = joined(kSizes, kLayerNorm);

void read_plain(const GgufReading& in, JsonFields& out) {
  read_gguf_heads(in, out);
  read_gguf_rope(in, out);
}

// --- Command-R

constexpr Names kCohereBlock[] = {
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm"},
    {"blk.{}.attn_q_norm", "model.layers.{}.self_attn.q_norm", Change::kAsF32},
    {"blk.{}.attn_k_norm", "model.layers.{}.self_attn.k_norm", Change::kAsF32}};
constexpr auto kCohere = joined(kEnds, kCohereBlock, kAttention, kMlp);
constexpr GgufKey kCohereScale[] = {
    {"logit_scale", "logit_scale", true, 0.0625}};
constexpr auto kCohereKeys = joined(kSizes, kLayerNorm, kCohereScale);

void read_cohere(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  out.erase("head_dim");
  out["use_qk_norm"] = json_flag(in.has("blk.0.attn_q_norm.weight"));
  out["tie_word_embeddings"] = "true";
}

void write_cohere(const GgufWriting& out) {
  constexpr std::size_t kNormsFrom = 64;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_tied(out, true);
  require_gguf_square_heads(out);
  const bool norms = out.config.flag("use_qk_norm").value_or(false);
  const bool deep =
      out.config.size("num_hidden_layers").value_or(0) >= kNormsFrom;
  if (norms != deep) {
    out.config.unsupported(
        "use_qk_norm",
        formatted("{}: llama.cpp has these norms from {} layers on and no "
                  "sooner",
                  json_flag(deep), kNormsFrom));
  }
  write_gguf_whole_rope(out);
}

// --- Nemotron

constexpr Names kNemotronNorms[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm", Change::kPlusOne},
    {"output", "lm_head"},
    {"blk.{}.attn_norm", "model.layers.{}.input_layernorm", Change::kPlusOne},
    {"blk.{}.ffn_norm", "model.layers.{}.post_attention_layernorm",
     Change::kPlusOne}};
constexpr auto kNemotron = joined(kNemotronNorms, kAttention, kPlainMlp);
constexpr GgufKey kNormEps[] = {
    {"attention.layer_norm_epsilon", "norm_eps", true, 1e-5}};
constexpr auto kNemotronKeys = joined(kSizes, kNormEps);

void read_nemotron(const GgufReading& in, JsonFields& out) {
  read_partial_gguf_rope(in, out);
  read_gguf_attention_bias(in, out);
  out["mlp_bias"] = json_flag(in.has("blk.0.ffn_up.bias"));
  out["hidden_act"] = "\"relu2\"";
}

void write_nemotron(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"relu2"});
  require_gguf_tied(out, false);
  require_gguf_square_heads(out);
  write_partial_gguf_rope(out, 0.5);
}

// --- Arcee and Jais 2

constexpr auto kArcee = joined(kEnds, kNorms, kTurnedAttention, kPlainMlp);
constexpr auto kJais2 = joined(kEnds, kNorms, kAttention, kPlainMlp);

void read_arcee(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  out["hidden_act"] = "\"relu2\"";
}

void write_arcee(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"relu2"});
  refuse_gguf_flag(out, "attention_bias", false);
  refuse_gguf_flag(out, "mlp_bias", false);
  write_gguf_whole_rope(out);
}

void write_jais2(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", {"relu2"});
  refuse_gguf_flag(out, "attention_bias", true);
  refuse_gguf_flag(out, "mlp_bias", true);
  refuse_gguf_rope_scaling(out);
  write_gguf_whole_rope(out);
}

// --- OLMo and OLMo 3

constexpr Names kBareEnds[] = {{"token_embd", "model.embed_tokens"},
                               {"output", "lm_head"}};
constexpr auto kOlmo = joined(kBareEnds, kTurnedAttention, kMlp);

void read_olmo(const GgufReading& in, JsonFields& out) {
  constexpr double kEpsilon = 1e-5;
  const double epsilon = in.number("attention.layer_norm_epsilon").value_or(0);
  if (static_cast<float>(epsilon) != static_cast<float>(kEpsilon)) {
    unsupported_gguf_key(in, "attention.layer_norm_epsilon", "1e-05");
  }
  read_plain(in, out);
  out.erase("head_dim");
  if (const auto clip = in.number("attention.clamp_kqv"); clip && *clip > 0) {
    out["clip_qkv"] = json_number(*clip);
  }
}

void write_olmo(const GgufWriting& out) {
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_square_heads(out);
  refuse_gguf_rope_scaling(out);
  out.number("attention.layer_norm_epsilon", 1e-5);
  if (const auto clip = out.config.number("clip_qkv")) {
    out.number("attention.clamp_kqv", *clip);
  }
  write_gguf_whole_rope(out);
}

constexpr auto kOlmo3 =
    joined(kEnds, kAttention, kHeadNorms, kNormsAfter, kMlp);
constexpr GgufKey kWindow[] = {
    {"attention.sliding_window", "sliding_window", false, 4096}};
constexpr auto kOlmo3Keys = joined(kSizes, kRmsOfOlmo, kWindow);

bool has_window(const GgufReading& in) {
  return in.size("attention.sliding_window").value_or(0) > 0;
}

void read_olmo3(const GgufReading& in, JsonFields& out) {
  read_plain(in, out);
  out.erase("head_dim");
  read_gguf_attention_bias(in, out);
  out["layer_types"] =
      read_gguf_layer_types(in, "sliding_attention", "full_attention", 4);
  // One embedding for both kinds, and its scaling for full attention alone.
  nlohmann::json full{{"rope_type", "default"}}, sliding = full;
  if (const auto scaling = out.find("rope_scaling"); scaling != out.end()) {
    full = nlohmann::json::parse(scaling->second);
    out.erase(scaling);
  }
  const double theta = in.number("rope.freq_base").value_or(10000);
  full["rope_theta"] = sliding["rope_theta"] = theta;
  out.erase("rope_theta");
  out["rope_parameters"] = nlohmann::json{
      {"full_attention", full},
      {"sliding_attention",
       sliding}}.dump();
}

void write_olmo3(const GgufWriting& out) {
  constexpr double kTheta = 5e5;
  require_gguf_activation(out, "hidden_act", kSilu);
  refuse_gguf_flag(out, "attention_bias", false);
  require_gguf_tied(out, false);
  require_gguf_square_heads(out);
  write_gguf_layer_types(out, "sliding_attention", 4);
  const GgufHeads h = write_gguf_heads(out);
  out.size("rope.dimension_count", h.head_dim);
  const auto both = out.config.object("rope_parameters");
  const auto sliding = both ? both->object("sliding_attention") : std::nullopt;
  const auto full = both ? both->object("full_attention") : std::nullopt;
  if (!full) {
    write_gguf_rope(out, h.head_dim, kTheta);
    require_gguf_number(out, "rope_theta", kTheta);
    return;
  }
  const double theta = full->number("rope_theta").value_or(kTheta);
  if (sliding && sliding->number("rope_theta").value_or(kTheta) != theta) {
    sliding->unsupported("rope_theta", "that of full_attention");
  }
  if (sliding && sliding->text("rope_type").value_or("default") != "default") {
    sliding->unsupported("rope_type", "default");
  }
  write_gguf_rope_of(out, full, h.head_dim, kTheta);
}

constexpr std::array kArchitectures{
    GgufArchitecture{.name = "command-r",
                     .model_type = "cohere",
                     .tensors = kCohere,
                     .keys = kCohereKeys,
                     .read = read_cohere,
                     .write = write_cohere,
                     .rope_theta = 5e5,
                     .tied = true,
                     .hf_class = "CohereForCausalLM"},
    GgufArchitecture{.name = "nemotron",
                     .model_type = "nemotron",
                     .tensors = kNemotron,
                     .keys = kNemotronKeys,
                     .read = read_nemotron,
                     .write = write_nemotron,
                     .hf_class = "NemotronForCausalLM"},
    GgufArchitecture{.name = "arcee",
                     .model_type = "arcee",
                     .tensors = kArcee,
                     .keys = kRmsKeys,
                     .read = read_arcee,
                     .write = write_arcee,
                     .hf_class = "ArceeForCausalLM"},
    GgufArchitecture{.name = "jais2",
                     .model_type = "jais2",
                     .tensors = kJais2,
                     .keys = kLayerNormKeys,
                     .read = read_arcee,
                     .write = write_jais2,
                     .hf_class = "Jais2ForCausalLM"},
    GgufArchitecture{.name = "olmo",
                     .model_type = "olmo",
                     .tensors = kOlmo,
                     .keys = kSizes,
                     .read = read_olmo,
                     .write = write_olmo,
                     .hf_class = "OlmoForCausalLM"},
    GgufArchitecture{.name = "olmo2",
                     .model_type = "olmo3",
                     .tensors = kOlmo3,
                     .keys = kOlmo3Keys,
                     .read = read_olmo3,
                     .write = write_olmo3,
                     .fits = has_window,
                     .rope_theta = 5e5,
                     .hf_class = "Olmo3ForCausalLM"},
};

}  // namespace

std::span<const GgufArchitecture> dense_gguf_architectures() {
  return kArchitectures;
}

}  // namespace llmpress

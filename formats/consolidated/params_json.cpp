#include "formats/consolidated/params_json.h"

#include <nlohmann/json.hpp>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "formats/checkpoints/config_reader.h"

namespace llmpress {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kDefaultEpsilon = 1e-5, kDefaultTheta = 1e4;
constexpr std::size_t kDefaultMultiple = 256;
// Contexts that the models were trained on: params.json does not say them.
constexpr std::size_t kLlamaContext = 2048, kLlama3Context = 8192,
                      kScaledContext = 131072, kMistralContext = 32768;
constexpr double kLlama3Theta = 5e5;

std::size_t required(const ConfigReader& params, const char* key) {
  const auto value = params.size(key);
  if (!value || *value == 0) params.invalid(key, "a size");
  return *value;
}

// meta-llama/llama-models scales by 8; Llama 3.2's small models by 32, as their
// config.json says.
Json scaled_rope(const ConfigReader& params, std::size_t hidden,
                 std::size_t layers) {
  const bool small =
      (hidden == 2048 && layers == 16) || (hidden == 3072 && layers == 28);
  return {{"rope_type", "llama3"},
          {"factor",
           params.number("rope_scaling_factor").value_or(small ? 32.0 : 8.0)},
          {"low_freq_factor", 1.0},
          {"high_freq_factor",
           params.number("rope_high_freq_factor").value_or(4.0)},
          {"original_max_position_embeddings", kLlama3Context}};
}

void check_vocabulary(const ConfigReader& params, std::size_t stored) {
  const auto said = params.number("vocab_size");  // -1: as the tokenizer has
  if (!said || *said < 0 || *said == static_cast<double>(stored)) return;
  params.invalid("vocab_size",
                 formatted("{}, as the embedding has rows", stored));
}

// What Meta's models have. Returns the width of the MLP.
std::size_t read_meta(const ConfigReader& params, std::size_t hidden,
                      Json& config) {
  const double theta = params.number("rope_theta").value_or(kDefaultTheta);
  const bool scaled = params.flag("use_scaled_rope").value_or(false);
  config["architectures"] = {"LlamaForCausalLM"};
  config["model_type"] = "llama";
  config["rope_theta"] = theta;
  if (scaled) {
    config["rope_scaling"] = scaled_rope(
        params, hidden, config["num_hidden_layers"].get<std::size_t>());
  }
  const std::size_t context = scaled                  ? kScaledContext
                              : theta >= kLlama3Theta ? kLlama3Context
                                                      : kLlamaContext;
  config["max_position_embeddings"] =
      params.size("max_seq_len").value_or(context);
  config["attention_bias"] = false;
  config["mlp_bias"] = false;
  const double multiplier = params.number("ffn_dim_multiplier").value_or(1);
  const std::size_t multiple =
      params.size("multiple_of").value_or(kDefaultMultiple);
  if (!(multiplier > 0 && multiplier < 1e6)) {
    params.invalid("ffn_dim_multiplier", "a number above 0");
  }
  if (multiple == 0) params.invalid("multiple_of", "a size");
  return llama_ffn(hidden, multiplier, multiple);
}

std::size_t read_mistral(const ConfigReader& params, Json& config) {
  const auto window = params.size("sliding_window");
  const auto experts = params.object("moe");
  config["architectures"] = {experts ? "MixtralForCausalLM"
                                     : "MistralForCausalLM"};
  config["model_type"] = experts ? "mixtral" : "mistral";
  // mistral-inference: no window, longer waves.
  config["rope_theta"] =
      params.number("rope_theta").value_or(window ? kDefaultTheta : 1e6);
  config["sliding_window"] = window ? Json(*window) : Json(nullptr);
  auto context = params.size("max_position_embeddings");
  if (!context) context = params.size("max_seq_len");
  config["max_position_embeddings"] = context.value_or(kMistralContext);
  if (experts) {
    config["num_local_experts"] = required(*experts, "num_experts");
    config["num_experts_per_tok"] = required(*experts, "num_experts_per_tok");
  }
  return required(params, "hidden_dim");
}

void refuse_unread(const ConfigReader& params) {
  for (const char* key : {"max_batch_size", "model_parallel_size"}) {
    params.ignore(key);
  }
  // "transformer" of Mistral; a Mamba has other tensors.
  params.ignore("model_type");
  const auto unread = params.unread();
  if (unread.empty()) return;
  fail(ErrorCode::kUnsupported,
       "{}: '{}' is not known, and may change what the model computes",
       params.origin(), unread[0]);
}

}  // namespace

std::size_t llama_ffn(std::size_t dim, double multiplier,
                      std::size_t multiple_of) {
  auto width = checked_mul(dim, 8, "dim") / 3;
  width = static_cast<std::size_t>(multiplier * static_cast<double>(width));
  return checked_mul(ceil_div(width, multiple_of), multiple_of, "dim");
}

ConsolidatedParams read_params_json(const std::string& text,
                                    const ConsolidatedTensors& tensors,
                                    const std::string& where) {
  const ConfigReader params = ConfigReader::parse(text, where);
  ConsolidatedParams result{.hidden = required(params, "dim"),
                            .heads = required(params, "n_heads")};
  result.kv_heads = params.size("n_kv_heads").value_or(result.heads);
  if (result.kv_heads == 0) params.invalid("n_kv_heads", "a size");
  const auto head = params.size("head_dim");
  if (!head && result.hidden % result.heads != 0) {
    params.invalid("n_heads", "a divisor of dim");
  }
  Json config{{"hidden_size", result.hidden},
              {"num_hidden_layers", required(params, "n_layers")},
              {"num_attention_heads", result.heads},
              {"num_key_value_heads", result.kv_heads},
              {"head_dim", head.value_or(result.hidden / result.heads)},
              {"hidden_act", "silu"}};
  config["intermediate_size"] = params.has("hidden_dim")
                                    ? read_mistral(params, config)
                                    : read_meta(params, result.hidden, config);
  config["rms_norm_eps"] = params.number("norm_eps").value_or(kDefaultEpsilon);
  // A part of an embedding has some of its columns, or some of its rows.
  const std::size_t vocabulary =
      tensors.columns == result.hidden
          ? checked_mul(tensors.rows, tensors.parts, where)
          : tensors.rows;
  check_vocabulary(params, vocabulary);
  config["vocab_size"] = vocabulary;
  config["tie_word_embeddings"] =
      params.flag("tied_embeddings").value_or(!tensors.has_head);
  config["torch_dtype"] = facts(tensors.dtype).torch_name;
  refuse_unread(params);
  result.config_json = config.dump(2) + "\n";
  return result;
}

}  // namespace llmpress

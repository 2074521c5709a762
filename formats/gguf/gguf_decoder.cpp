#include "formats/gguf/gguf_decoder.h"

#include <array>
#include <nlohmann/json.hpp>

namespace llmpress {
namespace {

// As transformers 5 writes them, or older versions did.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kPlaces{
    {{"model.language_model.", "model."},
     {"language_model.model.", "model."},
     {"language_model.lm_head.", "lm_head."},
     {"model.text_model.", "model."},
     {"lm_head.", "lm_head."},
     {"model.layers.", "model.layers."},
     {"model.embed_tokens", "model.embed_tokens"}}};

}  // namespace

std::optional<std::string> gguf_decoder_config(const std::string& config_json) {
  const auto outer = nlohmann::json::parse(config_json, nullptr, false);
  if (!outer.is_object() || !outer.contains("text_config") ||
      !outer["text_config"].is_object()) {
    return std::nullopt;
  }
  nlohmann::json inner = outer["text_config"];
  inner["tie_word_embeddings"] = outer.contains("tie_word_embeddings")
                                     ? outer["tie_word_embeddings"]
                                     : nlohmann::json(true);
  for (const char* key : {"bos_token_id", "eos_token_id"}) {
    if (!inner.contains(key) && outer.contains(key)) inner[key] = outer[key];
  }
  return inner.dump();
}

std::optional<std::string> gguf_decoder_tensor(std::string_view name) {
  for (const auto& [here, there] : kPlaces) {
    if (name.starts_with(here)) {
      return std::string(there) + std::string(name.substr(here.size()));
    }
  }
  if (name.starts_with("model.norm.")) return std::string(name);
  return std::nullopt;
}

}  // namespace llmpress

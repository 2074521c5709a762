// The decoder of a vision-language model, which is what a GGUF file has of it
// (llama.cpp has what sees in a file of its own).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llmpress {

// "text_config" of such a config.json, with what stands beside it and concerns
// the decoder: tied embeddings, ends of sequences. Nothing for other models.
std::optional<std::string> gguf_decoder_config(const std::string& config_json);

// "model.language_model.norm.weight" as the decoder alone calls it:
// "model.norm.weight". Nothing for what is no part of it.
std::optional<std::string> gguf_decoder_tensor(std::string_view name);

}  // namespace llmpress

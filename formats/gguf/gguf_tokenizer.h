// The tokenizer in a GGUF file's metadata (tokenizer.ggml.*) as the files of a
// folder, and the files as metadata.
//
//   model "llama"   SentencePiece with byte pairs by score: tokens, scores,
//                   token_type (as sentencepiece_model.h's)  <->  tokenizer.model
//   model "gpt2"    byte pairs over octets: tokens, merges, token_type, `pre` (how
//                   a text is cut before)                    <->  tokenizer.json
//
// Other models (bert, t5, rwkv ...) are refused.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "formats/containers/gguf.h"

namespace llmpress {

// What llama.cpp calls it where there is none.
inline constexpr std::string_view kNoGgufTokenizer = "none";

// Files by name; none where the metadata has no tokenizer. Throws
// Error(kUnsupported) for a model or a `pre` that this version does not know,
// kInvalidInput for lists that do not fit together.
std::map<std::string, std::string> gguf_tokenizer_files(
    const GgufMetadata& metadata);

// Adds the tokenizer that `files` hold, padded to `vocabulary` tokens, or that
// there is none. Throws Error(kUnsupported) for one that llama.cpp has no
// word for.
void add_gguf_tokenizer(const std::map<std::string, std::string>& files,
                        std::size_t vocabulary, GgufMetadata& metadata);

// --- how texts are cut before byte pairs are merged (gguf_pre_tokenizers.cpp)

struct GgufPreTokenizer {
  std::string_view name;        // tokenizer.ggml.pre
  std::string_view tokenizers;  // the pre_tokenizer of tokenizer.json
  bool ignore_merges = false;
};
// nullptr: unknown. Several names mean the same.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);
// By what tokenizer.json has; nullptr if none is the same.
const GgufPreTokenizer* find_gguf_pre_tokenizer_like(
    const std::string& tokenizer_json);
std::string list_gguf_pre_tokenizers();

}  // namespace llmpress

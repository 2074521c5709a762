// What must hold in a tokenizer.model before libsentencepiece sees it: version
// 0.1.97 trusts its character map and its pieces, and dies of a damaged one.
//
// A model is a protobuf message (sentencepiece_model.proto); read here are
//   1: pieces { 1: piece, 2: score, 3: type }
//   3, 5: normalizer_spec, denormalizer_spec { 2: precompiled_charsmap }
// (formats/tokenizers/character_map.h).
#pragma once

#include <string>
#include <string_view>

namespace llmpress {

// Throws Error(kCorruptFile, "<origin>: ..."), or kUnsupported for a tiktoken
// vocabulary of the same name.
void check_sentencepiece_model(std::string_view model,
                               const std::string& origin);

}  // namespace llmpress

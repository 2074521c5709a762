// What must hold in a tokenizer.model before libsentencepiece sees it: version
// 0.1.97 trusts its character map and its pieces, and dies of a damaged one.
//
// A model is a protobuf message (sentencepiece_model.proto); read here are
//   1: pieces { 1: piece, 2: score, 3: type }
//   3, 5: normalizer_spec, denormalizer_spec { 2: precompiled_charsmap }
// A character map is
//   | u32 size of the trie | trie, units of u32 | strings, each ends in NUL |
// and the trie a double array (Aoe 1989) as Darts-clone makes it. A unit is
//   | 31: is a value | 10..30: offset | 9: offset is << 8 | 8: has a leaf |
//   | 0..7: label |
// From the node at p its child by byte c stands at (p ^ offset(p)) ^ c, and its
// leaf, whose lower 31 bits are a place in the strings, at p ^ offset(p).
#pragma once

#include <string>
#include <string_view>

namespace llmpress {

// Throws Error(kCorruptFile, "<origin>: ..."), or kUnsupported for a tiktoken
// vocabulary of the same name.
void check_sentencepiece_model(std::string_view model,
                               const std::string& origin);

}  // namespace llmpress

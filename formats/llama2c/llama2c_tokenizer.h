// tokenizer.bin of karpathy/llama2.c (tokenizer.py): the pieces of a
// SentencePiece model of byte pairs in the order of their ids,
//
//   | u32 longest piece | f32 score, u32 n, n octets | ...
//
// with a space where the model has U+2581, and a line feed on either side of
// "<s>" (id 1) and "</s>" (id 2).
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>

namespace llmpress {

// The same as tokenizer.model. Throws Error(kCorruptFile) if it does not have
// `vocabulary` pieces. Differs from the model that it was made of: which pieces
// a user defined is not kept, and what texts are normalized by.
std::string sentencepiece_of_llama2c(std::span<const std::byte> file,
                                     std::size_t vocabulary,
                                     const std::string& where);

// What the tokenizer of the checkpoint at `path` would be in a folder, by name:
// of tokenizer.bin beside it, or the files of a folder's tokenizer that lie
// beside it.
std::map<std::string, std::string> read_llama2c_files(
    const std::filesystem::path& path);

}  // namespace llmpress

// A GGUF file, or the first of a split one, as a checkpoint.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Throws as GgufFile::open() and GgufModel do.
std::unique_ptr<Checkpoint> open_gguf_checkpoint(
    const std::filesystem::path& path);

// The only model in GGUF in a folder: one .gguf file, or the first of one split
// model. nullopt: there is none. Throws Error(kInvalidInput) naming two if
// there are several.
std::optional<std::filesystem::path> find_gguf(
    const std::filesystem::path& folder);

// The files that make the model at `path`, in order.
std::vector<std::filesystem::path> gguf_files(
    const std::filesystem::path& path);

// What its tokenizer would be in a folder: tokenizer.json or tokenizer.model,
// tokenizer_config.json, by name (gguf_tokenizer.h).
std::map<std::string, std::string> read_gguf_files(
    const std::filesystem::path& path);

}  // namespace llmpress

// The files that a model is made of.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// Of a folder its description and its weights, in safetensors or, without any,
// as torch.save writes them; of a GGUF file all its parts; else the file itself.
// Sorted.
std::vector<std::filesystem::path> model_files(
    const std::filesystem::path& model);

// The name, size and time of change of each of these files, a line each: what
// tells at no cost that a model is another. Throws Error(kIo).
std::string model_state(const std::filesystem::path& model);

// One hash over the names and contents of these files, whose hashes are those of
// parts of 256 MiB.
std::string model_sha256(const Checkpoint& checkpoint, ThreadPool& pool);

}  // namespace llmpress

// What the writer of a folder that lasts as long as a run
// (ArtifactOptions::passing_room) notes of it, so that it need not read it back:
// whoever takes from it compares. In its file "hashes" there is a line
// "<content_hash.h>  <name>" for
//   config.json                   each other file,
//   model.safetensors/            the header of that file, and
//   model.safetensors/<tensor>    the octets of each tensor.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "formats/containers/tensor_io.h"

namespace llmpress {

class Checkpoint;

using TensorHashes = std::map<std::string, std::string>;  // by tensor

inline constexpr const char* kHashesFile = "hashes";

// Of its octets (content_hash.h). What lies in a file is never in memory whole.
std::string hash_of_tensor(const TensorReader& reader, const TensorInfo& info);

// The text of that file; `files`: their octets by name.
std::string written_hashes(std::string_view header, const TensorHashes& tensors,
                           const std::map<std::string, std::string>& files);

// Whether the folder holds what was written, all of it and nothing else.
bool is_as_written(const std::filesystem::path& folder);

// Throws Error(kIo).
TensorHashes read_tensor_hashes(const std::filesystem::path& folder);

// Throws Error(kIo) naming the first tensor "<linear>.*" of the checkpoint whose
// octets are not those with these hashes.
void check_linear(const Checkpoint& checkpoint, std::string_view linear,
                  const TensorHashes& hashes);

}  // namespace llmpress

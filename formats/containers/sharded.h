// A checkpoint cut into several files with an index:
//
//   model.safetensors.index.json, or pytorch_model.bin.index.json of torch.save
//     {"metadata": {"total_size": octets of all tensors},
//      "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors",
//      ...}}
//
// A tensor never spans two files. Files are filled greedily in the order in
// which tensors come.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "formats/containers/tensor_io.h"

namespace llmpress {

inline constexpr std::string_view kSingleFileName = "model.safetensors";
inline constexpr std::string_view kIndexFileName =
    "model.safetensors.index.json";

// Opens every shard that the index names; each must hold the tensors that the
// index says. Tensors that lie in a shard but not in the index are there too,
// as in transformers, unless two shards hold one of the same name. Throws
// Error(kCorruptFile) or Error(kIo) if a shard is missing.
std::unique_ptr<TensorReader> open_sharded(const std::filesystem::path& index);

// The weight map of an index, every file name a plain name.
std::map<std::string, std::string> parse_shard_index(std::string_view text,
                                                     const std::string& where);

// "model-00001-of-00003.safetensors" for shard 0 of 3; "model.safetensors" for
// the only one.
std::string shard_name(std::size_t shard, std::size_t count);

// As json.dumps(index, indent=2, sort_keys=True) + "\n" writes it.
std::string shard_index_json(
    const std::map<std::string, std::string>& weight_map,
    std::size_t total_bytes);

}  // namespace llmpress

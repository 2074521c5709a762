// One file of safetensors out of octets that lie in other files, written by this
// process or by another that sees them (compress/core/ranks.h).
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "formats/containers/file_range.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

struct ShardPart {
  std::string tensor{};
  std::size_t bytes = 0;
  std::size_t place = 0;  // in the shard
  std::function<TensorBytes()> read{};
  std::string hash{};  // of what must be read (content_hash.h), if it is known
  // Where they lie, for another process; read() gives that file mapped.
  FileRange from{};
};

struct ShardFile {
  std::filesystem::path path{};
  std::string header{};
  std::vector<ShardPart> parts{};
  // Not empty: which parts have been written, line by line. They are not read
  // again if the file still begins with the header and has their octets.
  std::filesystem::path journal{};
};

// Writes the file, flushed to the disk; returns the hash of each part as it was
// read (content_hash.h). Throws Error(kIo).
std::vector<std::string> write_shard(const ShardFile& shard, ThreadPool& pool);

// The same with shards dealt out in turn, each read back by who wrote it. What
// the first rank passes counts, and it gets the hashes of all; the others get
// nothing. Collective.
std::vector<std::vector<std::string>> write_shards(
    const std::vector<ShardFile>& shards, const Ranks& ranks, ThreadPool& pool);

}  // namespace llmpress

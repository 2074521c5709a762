#include "formats/containers/sharded.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/checkpoints/carried_files.h"
#include "formats/containers/file_range.h"
#include "formats/containers/safetensors.h"
#include "formats/files/json_check.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

[[noreturn]] void corrupt(const std::string& where, const std::string& what) {
  fail(ErrorCode::kCorruptFile, "{}: {}", where, what);
}

class ShardedReader : public TensorReader, public PlacedTensors {
 public:
  explicit ShardedReader(const std::filesystem::path& index) {
    const auto weight_map = parse_shard_index(read_file(index), index.string());
    for (const auto& [tensor, file] : weight_map) {
      auto& shard = shards_[file];
      if (!shard) shard = open_tensor_file(index.parent_path() / file);
      const TensorInfo* const info = shard->find(tensor);
      if (info == nullptr) {
        corrupt(index.string(),
                "tensor '" + tensor + "' is not in its shard " + file);
      }
      tensors_.push_back(*info);
    }
    add_unindexed(weight_map, index.string());
    std::sort(tensors_.begin(), tensors_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    // torchao describes a tensor in the file that holds it.
    for (const auto& [file, shard] : shards_) {
      metadata_.insert(shard->metadata().begin(), shard->metadata().end());
    }
  }

  std::span<const TensorInfo> tensors() const override { return tensors_; }
  const std::map<std::string, std::string>& metadata() const override {
    return metadata_;
  }
  TensorBytes read(const TensorInfo& info) const override {
    return shards_.at(require(info.name).file)->read(info);
  }
  FileRange place_of(const TensorInfo& info) const override {
    return llmpress::place_of(*shards_.at(require(info.name).file), info);
  }

 private:
  void add_unindexed(const std::map<std::string, std::string>& weight_map,
                     const std::string& where) {
    std::map<std::string, std::string> unindexed;
    for (const auto& [file, shard] : shards_) {
      for (const TensorInfo& info : shard->tensors()) {
        if (weight_map.contains(info.name)) continue;
        const auto [at, added] = unindexed.emplace(info.name, file);
        if (!added) {
          corrupt(where, "tensor '" + info.name +
                             "' is not in the index and lies in both " +
                             at->second + " and " + file);
        }
        tensors_.push_back(info);
      }
    }
  }

  std::map<std::string, std::unique_ptr<TensorReader>> shards_{};
  std::vector<TensorInfo> tensors_{};
  std::map<std::string, std::string> metadata_{};
};

}  // namespace

std::map<std::string, std::string> parse_shard_index(std::string_view text,
                                                     const std::string& where) {
  check_json_object(text, where);
  const json index = json::parse(text);
  const auto at = index.find("weight_map");
  if (at == index.end() || !at->is_object()) {
    corrupt(where, "has no object 'weight_map'");
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, file] : at->items()) {
    if (!file.is_string() || !is_plain_file_name(file.get<std::string>())) {
      corrupt(where, "weight_map: '" + tensor + "' is not a plain file name");
    }
    weight_map.emplace(tensor, file.get<std::string>());
  }
  return weight_map;
}

std::unique_ptr<TensorReader> open_sharded(const std::filesystem::path& index) {
  return std::make_unique<ShardedReader>(index);
}

std::string shard_name(std::size_t shard, std::size_t count) {
  if (count == 1) return std::string(kSingleFileName);
  char name[80];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors",
                shard + 1, count);
  return name;
}

std::string shard_index_json(
    const std::map<std::string, std::string>& weight_map,
    std::size_t total_bytes) {
  const json index = {{"metadata", {{"total_size", total_bytes}}},
                      {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

}  // namespace llmpress

#include "formats/checkpoints/shard_file.h"

#include <mutex>
#include <nlohmann/json.hpp>
#include <span>

#include "compress/core/formatted.h"
#include "formats/files/atomic_file.h"
#include "formats/files/content_hash.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

class ShardWriter {
 public:
  explicit ShardWriter(const ShardFile& shard)
      : shard_(shard), file_(shard.path), hashes_(shard.parts.size()) {}

  std::vector<std::string> write(ThreadPool& pool) {
    file_.write(shard_.header);
    pool.for_each(shard_.parts.size(), [&](std::size_t i) { write_part(i); });
    file_.close();
    return std::move(hashes_);
  }

 private:
  void write_part(std::size_t i) {
    // No two of these at once in memory.
    constexpr std::size_t kLarge = std::size_t{32} << 20;
    const ShardPart& part = shard_.parts[i];
    std::unique_lock alone(large_, std::defer_lock);
    if (part.bytes > kLarge) alone.lock();
    const TensorBytes stored = part.read();
    if (stored.bytes.size() != part.bytes) {
      fail(ErrorCode::kIo, "tensor '{}': {} octets where {} were said",
           part.tensor, stored.bytes.size(), part.bytes);
    }
    hashes_[i] = content_hash(stored.bytes);
    if (!part.hash.empty() && hashes_[i] != part.hash) {
      fail(ErrorCode::kIo,
           "tensor '{}': its spool has other octets than were "
           "written",
           part.tensor);
    }
    // The system lets one thread write into a file at a time; others would spin.
    const std::lock_guard writing(writing_);
    file_.write_at(part.place, stored.bytes);
  }

  const ShardFile& shard_;
  OutputFile file_;
  std::vector<std::string> hashes_;
  std::mutex large_{}, writing_{};
};

void check_written(const ShardFile& shard,
                   const std::vector<std::string>& hashes) {
  const TensorBytes file = map_file(shard.path);
  for (std::size_t i = 0; i < shard.parts.size(); ++i) {
    const ShardPart& part = shard.parts[i];
    if (file.bytes.size() < part.place + part.bytes ||
        content_hash(mapped_part(file, part.place, part.bytes).bytes) !=
            hashes[i]) {
      fail(ErrorCode::kIo,
           "reading back: tensor '{}' has other octets than were written",
           part.tensor);
    }
  }
}

json to_json(const std::vector<ShardFile>& shards) {
  json all = json::array();
  for (const ShardFile& shard : shards) {
    json parts = json::array();
    for (const ShardPart& part : shard.parts) {
      parts.push_back({part.tensor, part.bytes, part.place,
                       std::filesystem::absolute(part.from.file).string(),
                       part.from.begin, part.hash});
    }
    all.push_back(
        {{"path", std::filesystem::absolute(shard.path).string()},
         {"header", json::binary({shard.header.begin(), shard.header.end()})},
         {"parts", std::move(parts)}});
  }
  return all;
}

std::vector<ShardFile> shards_from(const json& all) {
  std::vector<ShardFile> shards;
  for (const json& one : all) {
    const auto& header = one.at("header").get_binary();
    ShardFile shard{.path = one.at("path").get<std::string>(),
                    .header = {header.begin(), header.end()}};
    for (const json& p : one.at("parts")) {
      ShardPart part{.tensor = p.at(0).get<std::string>(),
                     .bytes = p.at(1).get<std::size_t>(),
                     .place = p.at(2).get<std::size_t>(),
                     .from = {.file = p.at(3).get<std::string>(),
                              .begin = p.at(4).get<std::size_t>()}};
      part.hash = p.at(5).get<std::string>();
      part.read = [from = part.from, bytes = part.bytes] {
        return mapped_part(map_file(from.file), from.begin, bytes);
      };
      shard.parts.push_back(std::move(part));
    }
    shards.push_back(std::move(shard));
  }
  return shards;
}

}  // namespace

std::vector<std::string> write_shard(const ShardFile& shard, ThreadPool& pool) {
  return ShardWriter(shard).write(pool);
}

std::vector<std::vector<std::string>> write_shards(
    const std::vector<ShardFile>& shards, const Ranks& ranks,
    ThreadPool& pool) {
  std::string packed;
  if (ranks.is_first()) json::to_msgpack(to_json(shards), packed);
  packed = ranks.broadcast(std::move(packed));
  const auto all = shards_from(json::from_msgpack(packed));
  json own = json::object();
  for (std::size_t s = 0; s < all.size(); ++s) {
    if (!ranks.owns(s)) continue;
    const auto hashes = write_shard(all[s], pool);
    check_written(all[s], hashes);
    own[std::to_string(s)] = hashes;
  }
  std::vector<std::vector<std::string>> found(ranks.is_first() ? all.size()
                                                               : 0);
  for (const std::string& text : ranks.gather_on_first(own.dump())) {
    if (!ranks.is_first()) break;
    const json of_rank = json::parse(text);
    for (const auto& [s, hashes] : of_rank.items()) {
      found[std::stoul(s)] = hashes.get<std::vector<std::string>>();
    }
  }
  return found;
}

}  // namespace llmpress

#include "formats/checkpoints/shard_file.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "compress/core/formatted.h"
#include "formats/files/atomic_file.h"
#include "formats/files/content_hash.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

using json = nlohmann::json;

// No two of these at once in memory.
constexpr std::size_t kLarge = std::size_t{32} << 20;
// So many octets at a time are sent to the disk while others are made.
constexpr std::size_t kFlushed = std::size_t{64} << 20;

// What a shard holds already, by the lines "<hash> <place> <octets> <tensor>" of
// its journal. The last line may have been cut off.
class ShardProgress {
 public:
  explicit ShardProgress(const ShardFile& shard) {
    if (shard.journal.empty() || !path_exists(shard.path) ||
        !path_exists(shard.journal)) {
      return;
    }
    file_ = map_file(shard.path);
    const auto header = std::as_bytes(std::span(shard.header));
    begun_ = file_.bytes.size() >= header.size() &&
             std::ranges::equal(file_.bytes.first(header.size()), header);
    if (!begun_) return;
    const TensorBytes journal = map_file(shard.journal);
    std::istringstream lines(
        std::string(reinterpret_cast<const char*>(journal.bytes.data()),
                    journal.bytes.size()));
    for (std::string line; std::getline(lines, line) && !lines.eof();) {
      const std::size_t hash_end = line.find(' ');
      if (hash_end == std::string::npos) continue;
      hashes_[line.substr(hash_end + 1)] = line.substr(0, hash_end);
    }
  }

  bool has_begun() const { return begun_; }

  static std::string line_of(const ShardPart& part) {
    return formatted("{} {} {}", part.place, part.bytes, part.tensor);
  }

  // Of a part that is there as it was written; else empty.
  std::string hash_of(const ShardPart& part) const {
    const auto noted = hashes_.find(line_of(part));
    const bool there =
        noted != hashes_.end() && part.place <= file_.bytes.size() &&
        part.bytes <= file_.bytes.size() - part.place &&
        (part.hash.empty() || part.hash == noted->second) &&
        content_hash(mapped_part(file_, part.place, part.bytes).bytes) ==
            noted->second;
    return there ? noted->second : std::string();
  }

 private:
  bool begun_ = false;
  TensorBytes file_{};
  std::map<std::string, std::string> hashes_{};  // by line_of()
};

class ShardWriter {
 public:
  explicit ShardWriter(const ShardFile& shard)
      : shard_(shard), progress_(shard), hashes_(shard.parts.size()) {
    if (progress_.has_begun()) {
      file_ = OutputFile::reopen(shard.path);
    } else {
      if (!shard.journal.empty()) {
        std::error_code ignored;  // what stays is in the way, and said so
        std::filesystem::remove(shard.path, ignored);
        std::filesystem::remove(shard.journal, ignored);
      }
      file_ = OutputFile(shard.path);
      file_.write(shard_.header);
    }
    if (!shard.journal.empty()) journal_ = OutputFile::append(shard.journal);
  }

  std::vector<std::string> write(ThreadPool& pool) {
    // What is made as it is read may have use for all threads.
    const auto is_alone = [&](std::size_t i) {
      const ShardPart& part = shard_.parts[i];
      return part.bytes > kLarge && part.from.file.empty();
    };
    for (std::size_t i = 0; i < shard_.parts.size(); ++i) {
      if (is_alone(i)) write_part(i);
    }
    pool.for_each(shard_.parts.size(), [&](std::size_t i) {
      if (!is_alone(i)) write_part(i);
    });
    file_.close();
    return std::move(hashes_);
  }

 private:
  void write_part(std::size_t i) {
    const ShardPart& part = shard_.parts[i];
    hashes_[i] = progress_.hash_of(part);
    if (!hashes_[i].empty()) return;
    hashes_[i] = write_octets(part);
    if (!part.hash.empty() && hashes_[i] != part.hash) {
      fail(ErrorCode::kIo, "tensor '{}': {} has other octets than were written",
           part.tensor, part.from.file);
    }
    if (!journal_.is_open()) return;
    const std::lock_guard writing(writing_);
    journal_.write(hashes_[i] + " " + ShardProgress::line_of(part) + "\n");
  }

  // The hash of what was read. What lies in a file comes in pieces.
  std::string write_octets(const ShardPart& part) {
    const bool is_made = part.from.file.empty();
    std::unique_lock alone(large_, std::defer_lock);
    if (is_made && part.bytes > kLarge) alone.lock();
    const TensorBytes octets = part.read();
    if (octets.bytes.size() != part.bytes) {
      fail(ErrorCode::kIo, "tensor '{}': {} octets where {} were said",
           part.tensor, octets.bytes.size(), part.bytes);
    }
    ContentHasher hasher;
    std::size_t place = part.place;
    const auto write_piece = [&](std::span<const std::byte> piece) {
      hasher.add(piece);
      write_at(place, piece);
      place += piece.size();
    };
    if (is_made) {
      write_piece(octets.bytes);
    } else {
      for_parts(octets, write_piece);
    }
    return hasher.hash();
  }

  // The system lets one thread write into a file at a time; others would spin.
  void write_at(std::size_t place, std::span<const std::byte> octets) {
    const std::lock_guard writing(writing_);
    file_.write_at(place, octets);
    unflushed_ += octets.size();
    if (unflushed_ < kFlushed) return;
    file_.begin_flush();
    unflushed_ = 0;
  }

  const ShardFile& shard_;
  ShardProgress progress_;
  OutputFile file_{}, journal_{};
  std::vector<std::string> hashes_;
  std::mutex large_{}, writing_{};
  std::size_t unflushed_ = 0;
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

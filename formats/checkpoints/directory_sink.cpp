// A folder: model.safetensors or shards with their index, config.json and
// files.
#include <mutex>
#include <set>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_sink.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/files/atomic_file.h"
#include "formats/files/mapped_file.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// transformers refuses files that do not say whose tensors they hold.
const std::map<std::string, std::string> kMetadata{{"format", "pt"}};

// Tensors are spooled in the order in which they come, but for those that lie in
// a file already; the shard is written from there in the reference order when it
// is full, so that no more than one shard is on the disk twice.
class DirectorySink : public ArtifactSink {
 public:
  explicit DirectorySink(const ArtifactOptions& options)
      : output_(options.output),
        max_shard_bytes_(options.max_shard_bytes),
        pool_(options.pool),
        partial_(options.output) {}

  void put(const NamedTensor& tensor) override {
    ledger_.add(tensor);
    make_room(tensor.bytes.size());
    if (!spool_.is_open()) spool_ = OutputFile(partial_.path() / "spool");
    spool_.write(tensor.bytes);
    pieces_.push_back({.begin = spooled_bytes_});
    spooled_bytes_ += tensor.bytes.size();
    add(info_of(tensor));
  }

  void put_stored(const StoredTensor& tensor) override {
    ledger_.announce(tensor.info.name);
    make_room(tensor.info.bytes);
    pieces_.push_back({.read = tensor.read});
    add(tensor.info);
  }

  void finish(const std::map<std::string, std::string>& given) override {
    if (!infos_.empty() || shards_ == 0) write_shard();
    name_shards();
    auto files = given;
    list_files(files);
    for (const auto& [name, content] : files) {
      const fs::path path = partial_.path() / name;
      fs::create_directories(path.parent_path());
      OutputFile file(path);
      file.write(content);
      file.close();
      sync_directory(path.parent_path());
    }
    sync_directory(partial_.path());
    ledger_.compare(*open_tensors(partial_.path()));
    for (const auto& [name, content] : files) {
      if (read_file(partial_.path() / name) != content) {
        fail(ErrorCode::kIo, "reading back: file {} has other octets", name);
      }
    }
    // Hours may have passed since it was looked at.
    check_replaceable(output_, OutputKind::kFolder);
    replace_path(partial_.path(), output_);
  }

 private:
  // Where the octets of a tensor are: in the spool, or in somebody's file.
  struct Piece {
    std::size_t begin = 0;
    std::function<TensorBytes()> read{};
  };

  fs::path unnamed_shard(std::size_t shard) const {
    return partial_.path() / ("shard-" + std::to_string(shard));
  }

  // What a later run may replace: the files of this one.
  void list_files(std::map<std::string, std::string>& files) const {
    std::string& provenance = files[std::string(kProvenanceFile)];
    std::set<std::string> names;
    for (const auto& [name, content] : files) names.insert(name);
    for (const auto& entry : fs::directory_iterator(partial_.path())) {
      names.insert(entry.path().filename().string());
    }
    provenance = marked_json(provenance, names);
  }

  // Ends the shard that `bytes` more would make too large.
  void make_room(std::size_t bytes) {
    if (!infos_.empty() && shard_bytes_ + bytes > max_shard_bytes_) {
      write_shard();
    }
  }

  void add(TensorInfo info) {
    shard_bytes_ += info.bytes;
    infos_.push_back(std::move(info));
  }

  void write_piece(std::size_t i, const TensorBytes& spool, std::size_t place,
                   OutputFile& file) {
    // No two of these at once in memory.
    constexpr std::size_t kLarge = std::size_t{32} << 20;
    std::unique_lock alone(large_, std::defer_lock);
    if (infos_[i].bytes > kLarge) alone.lock();
    const Piece& piece = pieces_[i];
    const TensorBytes stored =
        piece.read ? piece.read()
                   : mapped_part(spool, piece.begin, infos_[i].bytes);
    if (stored.bytes.size() != infos_[i].bytes) {
      fail(ErrorCode::kIo, "tensor '{}': {} octets where {} were said",
           infos_[i].name, stored.bytes.size(), infos_[i].bytes);
    }
    if (piece.read) ledger_.add(infos_[i], stored.bytes);
    // The system lets one thread write into a file at a time; others would spin.
    const std::lock_guard writing(writing_);
    file.write_at(place, stored.bytes);
  }

  void write_shard() {
    if (spool_.is_open()) spool_.close_unflushed();
    {
      const TensorBytes spool = spooled_bytes_ == 0
                                    ? TensorBytes{}
                                    : map_file(partial_.path() / "spool");
      OutputFile file(unnamed_shard(shards_));
      const std::string header = safetensors_header(infos_, kMetadata);
      file.write(header);
      const std::vector<std::size_t> order = safetensors_order(infos_);
      std::vector<std::size_t> places;
      std::size_t at = header.size();
      for (const std::size_t i : order) {
        places.push_back(at);
        at += infos_[i].bytes;
      }
      ThreadPool alone(1);
      ThreadPool& pool = pool_ == nullptr ? alone : *pool_;
      pool.for_each(order.size(), [&](std::size_t k) {
        write_piece(order[k], spool, places[k], file);
      });
      file.close();
    }
    for (const TensorInfo& info : infos_) shard_of_[info.name] = shards_;
    ++shards_;
    std::error_code ignored;
    fs::remove(partial_.path() / "spool", ignored);
    infos_.clear();
    pieces_.clear();
    spooled_bytes_ = shard_bytes_ = 0;
  }

  // Their names say how many there are, which is known only now.
  void name_shards() {
    for (std::size_t s = 0; s < shards_; ++s) {
      fs::rename(unnamed_shard(s), partial_.path() / shard_name(s, shards_));
    }
    if (shards_ == 1) return;
    std::map<std::string, std::string> weight_map;
    for (const auto& [tensor, shard] : shard_of_) {
      weight_map[tensor] = shard_name(shard, shards_);
    }
    OutputFile index(partial_.path() / kIndexFileName);
    index.write(shard_index_json(weight_map, ledger_.total_bytes()));
    index.close();
  }

  fs::path output_;
  std::size_t max_shard_bytes_;
  ThreadPool* pool_;
  PartialDirectory partial_;
  TensorLedger ledger_{};
  OutputFile spool_{};
  std::vector<TensorInfo> infos_{};  // of the shard that is next
  std::vector<Piece> pieces_{};      // [infos_]
  std::size_t spooled_bytes_ = 0, shard_bytes_ = 0, shards_ = 0;
  std::map<std::string, std::size_t> shard_of_{};
  std::mutex large_{}, writing_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_directory_sink(
    const ArtifactOptions& options) {
  return std::make_unique<DirectorySink>(options);
}

}  // namespace llmpress

// A folder: model.safetensors or shards with their index, config.json and
// files.
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/checkpoints/artifact_sink.h"
#include "formats/checkpoints/shard_file.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/files/atomic_file.h"
#include "formats/files/content_hash.h"
#include "formats/files/mapped_file.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// transformers refuses files that do not say whose tensors they hold.
const std::map<std::string, std::string> kMetadata{{"format", "pt"}};

// Tensors are spooled in the order in which they come, but for those that lie in
// a file already; the shard is written from there in the reference order when it
// is full, so that no more than one shard is on the disk twice, or at the end
// where several processes write.
class DirectorySink : public ArtifactSink {
 public:
  explicit DirectorySink(const ArtifactOptions& options)
      : output_(options.output),
        max_shard_bytes_(options.max_shard_bytes),
        pool_(options.pool),
        ranks_(options.ranks),
        kept_(options.kept) {
    if (kept_.empty()) {
      folder_ = partial_.emplace(options.output).path();
    } else {
      folder_ = kept_;
      take_up();
    }
  }

  void put(const NamedTensor& tensor) override {
    const TensorInfo info = info_of(tensor);
    ledger_.announce(info.name);
    make_room(info.bytes);
    if (!spool_.is_open()) spool_ = OutputFile(spool_path(shards_));
    spool_.write(tensor.bytes);
    sources_.push_back({.from = {spool_path(shards_), spooled_bytes_},
                        .hash = content_hash(tensor.bytes)});
    spooled_bytes_ += info.bytes;
    add(info);
  }

  void put_stored(const StoredTensor& tensor) override {
    // Nobody else can make what is made as it is read.
    if (ranks_.is_spread() && tensor.from.file.empty()) {
      return ArtifactSink::put_stored(tensor);
    }
    ledger_.announce(tensor.info.name);
    make_room(tensor.info.bytes);
    sources_.push_back(
        {.read = tensor.read, .from = tensor.from, .hash = tensor.hash});
    add(tensor.info);
  }

  void finish(const std::map<std::string, std::string>& given) override {
    if (!infos_.empty() || shards_ == 0) end_shard();
    write_together();
    name_shards();
    auto files = given;
    list_files(files);
    for (const auto& [name, content] : files) {
      const fs::path path = folder_ / name;
      fs::create_directories(path.parent_path());
      OutputFile file(path);
      file.write(content);
      file.close();
      sync_directory(path.parent_path());
    }
    sync_directory(folder_);
    ThreadPool alone(1);
    ledger_.compare(*open_tensors(folder_), checked_,
                    pool_ == nullptr ? alone : *pool_);
    for (const auto& [name, content] : files) {
      if (read_file(folder_ / name) != content) {
        fail(ErrorCode::kIo, "reading back: file {} has other octets", name);
      }
    }
    // Hours may have passed since it was looked at.
    check_replaceable(output_, OutputKind::kFolder);
    replace_path(folder_, output_);
    std::error_code ignored;  // it is written
    for (std::size_t s = 0; s < shards_ && !kept_.empty(); ++s) {
      fs::remove(journal_path(s), ignored);
    }
  }

 private:
  // Of the octets of a tensor; without read(), in a spool.
  struct Source {
    std::function<TensorBytes()> read{};
    FileRange from{};
    std::string hash{};
  };
  struct Ended {
    std::vector<TensorInfo> infos{};
    ShardFile file{};
  };

  fs::path spool_path(std::size_t shard) const {
    return folder_ / ("spool-" + std::to_string(shard));
  }

  fs::path unnamed_shard(std::size_t shard) const {
    return folder_ / ("shard-" + std::to_string(shard));
  }

  fs::path journal_path(std::size_t shard) const {
    fs::path path = kept_;
    path += ".shard-" + std::to_string(shard);
    return path;
  }

  // The shard that shard_name() calls so among several.
  static std::optional<std::size_t> named_shard(std::string_view name) {
    constexpr std::string_view kFront = "model-";
    if (!name.starts_with(kFront) || !name.ends_with(".safetensors")) {
      return std::nullopt;
    }
    name.remove_prefix(kFront.size());
    std::size_t number = 0;
    const auto [end, bad] =
        std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad != std::errc() || number == 0) return std::nullopt;
    return number - 1;
  }

  // Shards under the names that they have while they are written; nothing else
  // of what stands there is of use.
  void take_up() {
    std::error_code error;
    const auto check = [&] {
      if (error) fail(ErrorCode::kIo, "{}: {}", folder_, error.message());
    };
    fs::create_directories(folder_, error);
    check();
    std::vector<fs::path> found;
    for (auto entry = fs::directory_iterator(folder_, error);
         !error && entry != fs::directory_iterator(); entry.increment(error)) {
      found.push_back(entry->path());
    }
    check();
    for (std::size_t i = 0; i < found.size() && !error; ++i) {
      const std::string name = found[i].filename().string();
      if (name == kSingleFileName) {
        fs::rename(found[i], unnamed_shard(0), error);
      } else if (const auto shard = named_shard(name)) {
        fs::rename(found[i], unnamed_shard(*shard), error);
      } else if (!name.starts_with("shard-")) {
        fs::remove_all(found[i], error);
      }
    }
    check();
  }

  // What a later run may replace: the files of this one.
  void list_files(std::map<std::string, std::string>& files) const {
    std::string& provenance = files[std::string(kProvenanceFile)];
    std::set<std::string> names;
    for (const auto& [name, content] : files) names.insert(name);
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    provenance = marked_json(provenance, names);
  }

  // Ends the shard that `bytes` more would make too large.
  void make_room(std::size_t bytes) {
    if (!infos_.empty() && shard_bytes_ + bytes > max_shard_bytes_) {
      end_shard();
    }
  }

  void add(TensorInfo info) {
    shard_bytes_ += info.bytes;
    infos_.push_back(std::move(info));
  }

  ShardFile shard_file() const {
    ShardFile shard{
        .path = unnamed_shard(shards_),
        .header = safetensors_header(infos_, kMetadata),
        .journal = kept_.empty() ? fs::path() : journal_path(shards_)};
    const TensorBytes spool =
        spooled_bytes_ == 0 ? TensorBytes{} : map_file(spool_path(shards_));
    std::size_t place = shard.header.size();
    for (const std::size_t i : safetensors_order(infos_)) {
      const Source& source = sources_[i];
      const std::size_t bytes = infos_[i].bytes;
      ShardPart part{.tensor = infos_[i].name,
                     .bytes = bytes,
                     .place = place,
                     .read = source.read,
                     .hash = source.hash,
                     .from = source.from};
      if (!part.read) {
        part.read = [spool, begin = source.from.begin, bytes] {
          return mapped_part(spool, begin, bytes);
        };
      }
      shard.parts.push_back(std::move(part));
      place += bytes;
    }
    return shard;
  }

  void end_shard() {
    if (spool_.is_open()) spool_.close_unflushed();
    for (const TensorInfo& info : infos_) shard_of_[info.name] = shards_;
    ShardFile file = shard_file();
    ended_.push_back({std::exchange(infos_, {}), std::move(file)});
    sources_.clear();
    if (!ranks_.is_spread()) {
      ThreadPool alone(1);
      note(write_shard(ended_[0].file, pool_ == nullptr ? alone : *pool_),
           ended_[0], shards_);
      ended_.clear();
    }
    ++shards_;
    spooled_bytes_ = shard_bytes_ = 0;
  }

  void write_together() {
    if (!ranks_.is_spread()) return;
    std::vector<ShardFile> files;
    for (const Ended& shard : ended_) files.push_back(shard.file);
    ThreadPool alone(1);
    const auto hashes =
        write_shards(files, ranks_, pool_ == nullptr ? alone : *pool_);
    for (std::size_t s = 0; s < ended_.size(); ++s) {
      note(hashes[s], ended_[s], s);
      for (const TensorInfo& info : ended_[s].infos) checked_.insert(info.name);
    }
  }

  // A shard that is written, with the hashes of its parts.
  void note(const std::vector<std::string>& hashes, const Ended& shard,
            std::size_t number) {
    const auto order = safetensors_order(shard.infos);
    for (std::size_t k = 0; k < order.size(); ++k) {
      ledger_.add(shard.infos[order[k]], hashes[k]);
    }
    std::error_code ignored;
    fs::remove(spool_path(number), ignored);
  }

  // Their names say how many there are, which is known only now.
  void name_shards() {
    for (std::size_t s = 0; s < shards_; ++s) {
      fs::rename(unnamed_shard(s), folder_ / shard_name(s, shards_));
    }
    if (shards_ == 1) return;
    std::map<std::string, std::string> weight_map;
    for (const auto& [tensor, shard] : shard_of_) {
      weight_map[tensor] = shard_name(shard, shards_);
    }
    OutputFile index(folder_ / kIndexFileName);
    index.write(shard_index_json(weight_map, ledger_.total_bytes()));
    index.close();
  }

  fs::path output_;
  std::size_t max_shard_bytes_;
  ThreadPool* pool_;
  Ranks ranks_;
  fs::path kept_;                              // ArtifactOptions::kept
  std::optional<PartialDirectory> partial_{};  // without one
  fs::path folder_{};                          // where it is written
  TensorLedger ledger_{};
  OutputFile spool_{};
  std::vector<TensorInfo> infos_{};  // of the shard that is next
  std::vector<Source> sources_{};    // [infos_]
  std::vector<Ended> ended_{};       // shards that are not written yet
  std::set<std::string> checked_{};  // tensors that were read back
  std::size_t spooled_bytes_ = 0, shard_bytes_ = 0, shards_ = 0;
  std::map<std::string, std::size_t> shard_of_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_directory_sink(
    const ArtifactOptions& options) {
  return std::make_unique<DirectorySink>(options);
}

}  // namespace llmpress

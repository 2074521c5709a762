// A folder: model.safetensors or shards with their index, config.json and
// files.
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

// Tensors are spooled in the order in which they come; the shard is written
// from there in the reference order when it is full, so that no more than one
// shard is on the disk twice.
class DirectorySink : public ArtifactSink {
 public:
  explicit DirectorySink(const ArtifactOptions& options)
      : output_(options.output),
        max_shard_bytes_(options.max_shard_bytes),
        partial_(options.output) {}

  void put(const NamedTensor& tensor) override {
    ledger_.add(tensor);
    if (!spooled_.empty() &&
        spooled_bytes_ + tensor.bytes.size() > max_shard_bytes_) {
      write_shard();
    }
    if (!spool_.is_open()) spool_ = OutputFile(partial_.path() / "spool");
    spool_.write(tensor.bytes);
    spooled_.push_back(info_of(tensor));
    begins_.push_back(spooled_bytes_);
    spooled_bytes_ += tensor.bytes.size();
  }

  void finish(const std::map<std::string, std::string>& given) override {
    if (!spooled_.empty() || shards_ == 0) write_shard();
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

  void write_shard() {
    if (spool_.is_open()) spool_.close_unflushed();
    {
      const TensorBytes spool = spooled_bytes_ == 0
                                    ? TensorBytes{}
                                    : map_file(partial_.path() / "spool");
      OutputFile file(unnamed_shard(shards_));
      file.write(safetensors_header(spooled_, kMetadata));
      for (const std::size_t i : safetensors_order(spooled_)) {
        file.write(mapped_part(spool, begins_[i], spooled_[i].bytes).bytes);
      }
      file.close();
    }
    for (const TensorInfo& info : spooled_) shard_of_[info.name] = shards_;
    ++shards_;
    std::error_code ignored;
    fs::remove(partial_.path() / "spool", ignored);
    spooled_.clear();
    begins_.clear();
    spooled_bytes_ = 0;
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
  PartialDirectory partial_;
  TensorLedger ledger_{};
  OutputFile spool_{};
  std::vector<TensorInfo> spooled_{};
  std::vector<std::size_t> begins_{};
  std::size_t spooled_bytes_ = 0, shards_ = 0;
  std::map<std::string, std::size_t> shard_of_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_directory_sink(
    const ArtifactOptions& options) {
  return std::make_unique<DirectorySink>(options);
}

}  // namespace llmpress

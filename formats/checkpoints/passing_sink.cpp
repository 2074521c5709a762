// A folder that lasts as long as a run: each octet is written once and read when
// it is used, and a power cut may take it.
#include <algorithm>
#include <numeric>
#include <utility>

#include "formats/checkpoints/artifact_sink.h"
#include "formats/checkpoints/written_hashes.h"
#include "formats/containers/safetensors.h"
#include "formats/containers/sharded.h"
#include "formats/files/atomic_file.h"
#include "formats/files/mapped_file.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

class PassingSink : public ArtifactSink {
 public:
  explicit PassingSink(const ArtifactOptions& options)
      : output_(options.output),
        room_(options.passing_room),
        partial_(options.output),
        file_(partial_.path() / shard_name(0, 1)) {
    file_.write(std::string(room_, ' '));
  }

  void put(const NamedTensor& tensor) override {
    ledger_.add(tensor);
    infos_.push_back(info_of(tensor));
    file_.write(tensor.bytes);
  }

  void finish(const std::map<std::string, std::string>& given) override {
    std::vector<std::size_t> order(infos_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const std::string header = safetensors_header(infos_, {}, order, room_);
    if (header.size() == room_) {
      file_.write_at(0, std::as_bytes(std::span(header)));
      file_.close_unflushed();
    } else {
      move_behind(header);
    }
    auto files = given;
    std::string& provenance = files[std::string(kProvenanceFile)];
    provenance = marked_json(provenance);
    std::string hashes = written_hashes(header, ledger_.hashes(), files);
    files[kHashesFile] = std::move(hashes);
    for (const auto& [name, content] : files) {
      OutputFile file(partial_.path() / name);
      file.write(content);
      file.close_unflushed();
    }
    rename_unflushed(partial_.path(), output_);
  }

 private:
  // The header takes more than its room.
  void move_behind(const std::string& header) {
    file_.close_unflushed();
    const fs::path path = file_.path();
    fs::path narrow = path;
    narrow += ".narrow";
    fs::rename(path, narrow);
    OutputFile file(path);
    file.write(header);
    const TensorBytes written = map_file(narrow);
    for_parts({written.bytes.subspan(room_), written.owner},
              [&](std::span<const std::byte> part) { file.write(part); });
    file.close_unflushed();
    fs::remove(narrow);
  }

  fs::path output_;
  std::size_t room_;
  PartialDirectory partial_;
  OutputFile file_;
  TensorLedger ledger_{};
  std::vector<TensorInfo> infos_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_passing_sink(
    const ArtifactOptions& options) {
  return std::make_unique<PassingSink>(options);
}

}  // namespace llmpress

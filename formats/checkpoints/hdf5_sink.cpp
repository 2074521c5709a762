// One HDF5 file; its layout is in hdf5_file.h.
#include "compress/core/error.h"
#include "formats/checkpoints/artifact_sink.h"
#include "formats/checkpoints/carried_files.h"
#include "formats/containers/hdf5_file.h"
#include "formats/files/atomic_file.h"
#include "formats/files/replaceable.h"

namespace llmpress {
namespace {

namespace fs = std::filesystem;

// The same failure is a bad file to a reader and a full disk to a writer.
template <class F>
void writing(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kCorruptFile) {
      throw Error(ErrorCode::kIo, e.what());
    }
    throw;
  }
}

class Hdf5Sink : public ArtifactSink {
 public:
  explicit Hdf5Sink(const ArtifactOptions& options)
      : output_(options.output),
        partial_(options.output),
        path_(partial_.path() / "model.h5"),
        file_(create_hdf5(path_.string())),
        tensors_(create_hdf5_group(file_, kHdf5TensorGroup, path_.string())) {}

  void put(const NamedTensor& tensor) override {
    ledger_.add(tensor);
    writing([&] { write_hdf5_tensor(tensors_, tensor, output_.string()); });
  }

  void finish(const std::map<std::string, std::string>& files) override {
    std::map<std::string, std::string> carried;
    for (const auto& [name, content] : files) {
      carried[carried_name_in_hdf5(name)] = content;
    }
    const std::string config = carried.extract("config.json").mapped();
    writing([&] { complete(config, carried); });
    sync_file(path_);
    verify(config, carried);
    check_replaceable(output_, OutputKind::kHdf5File);  // hours may have passed
    replace_path(path_, output_);
  }

 private:
  void complete(const std::string& config,
                const std::map<std::string, std::string>& carried) {
    const std::string where = output_.string();
    const Hdf5Session session;
    write_string_attribute(file_, kHdf5FormatAttribute, "1", where);
    write_string_attribute(file_, "config.json", config, where);
    const Hdf5Handle group = create_hdf5_group(file_, kHdf5FileGroup, where);
    for (const auto& [name, content] : carried) {
      write_hdf5_octets(group, name, content, where);
    }
    hdf5_flush(file_, where);
    // `group` keeps the file open for as long as it lives, here and below.
    Hdf5Handle tensors, file;
    std::swap(tensors, tensors_);
    std::swap(file, file_);
  }

  void verify(const std::string& config,
              const std::map<std::string, std::string>& carried) const {
    const auto reader = open_hdf5_tensors(path_);
    ledger_.compare(*reader);
    const auto found = reader->metadata().find("config.json");
    if (found == reader->metadata().end() || found->second != config) {
      throw Error(ErrorCode::kIo, "reading back: config.json differs");
    }
    if (read_hdf5_files(path_) != carried) {
      throw Error(ErrorCode::kIo, "reading back: a carried file differs");
    }
  }

  fs::path output_;
  PartialDirectory partial_;
  fs::path path_;
  Hdf5Handle file_;
  Hdf5Handle tensors_;
  TensorLedger ledger_{};
};

}  // namespace

std::unique_ptr<ArtifactSink> make_hdf5_sink(const ArtifactOptions& options) {
  return std::make_unique<Hdf5Sink>(options);
}

}  // namespace llmpress

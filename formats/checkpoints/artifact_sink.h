// Where the tensors and files of an artifact go: a folder of safetensors or one
// HDF5 file. Both are made beside the output and renamed onto it when whole.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoints/artifact_writer.h"
#include "formats/containers/tensor_io.h"

namespace llmpress {

class ArtifactSink {
 public:
  virtual ~ArtifactSink() = default;
  virtual void put(const NamedTensor& tensor) = 0;
  // As put(), with octets that lie in a file: read when they are written.
  virtual void put_stored(const StoredTensor& tensor);
  // Blocks of GGUF (EncodedLinear::blocks), which few sinks take.
  virtual void put_blocks(const NamedTensor& tensor, GgmlType type);
  // Writes `files` (config.json among them), reads everything back, compares it
  // and renames it into place.
  virtual void finish(const std::map<std::string, std::string>& files) = 0;
};

std::unique_ptr<ArtifactSink> make_directory_sink(
    const ArtifactOptions& options);
std::unique_ptr<ArtifactSink> make_hdf5_sink(const ArtifactOptions& options);
// ArtifactOptions::passing_room.
std::unique_ptr<ArtifactSink> make_passing_sink(const ArtifactOptions& options);

// What was put in, to be compared with what is read back.
class TensorLedger {
 public:
  // Both throw Error(kInvalidArgument) if a tensor of that name was there before.
  void add(const NamedTensor& tensor);
  void announce(const std::string& name);
  // What was announced, with octets that had this hash (content_hash.h) when they
  // were written.
  void add(const TensorInfo& info, std::string hash);
  // Throws Error(kIo) naming the first tensor that differs, is missing or is
  // there without having been added.
  void compare(const TensorReader& reader) const;
  // The same, but the octets of `checked` are not read again, those of the others
  // by all threads.
  void compare(const TensorReader& reader, const std::set<std::string>& checked,
               ThreadPool& pool) const;
  std::size_t total_bytes() const { return total_bytes_; }
  std::map<std::string, std::string> hashes() const;  // by tensor

 private:
  struct Entry {
    DType dtype = DType::kF32;
    std::vector<std::size_t> shape{};
    std::string hash{};
  };
  std::map<std::string, Entry> entries_{};
  std::set<std::string> announced_{};
  std::size_t total_bytes_ = 0;
};

}  // namespace llmpress

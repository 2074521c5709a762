// Writes a model directory or file, whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/packed_weight.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"
#include "formats/checkpoints/written_hashes.h"
#include "formats/containers/file_range.h"
#include "formats/containers/tensor_io.h"
#include "formats/files/replaceable.h"
#include "formats/linears/quantization_config.h"

namespace llmpress {

// One row of the table of output formats.
struct OutputFormat {
  std::string_view name;  // "compressed-tensors", "hdf5", "safetensors", ...
  std::string_view summary;
  OutputKind kind = OutputKind::kFolder;  // a folder, or what output.path names
  bool one_scheme = false;                // all packed Linears of a model alike
  bool rounds_inputs = false;             // can say that a Linear does
  bool plain_ends = false;     // loaders look tokens up in plain numbers only
  bool blocks = false;         // of GGUF, so that somebody reads them
  bool expert_stacks = false;  // of experts that come one by one
};
std::span<const OutputFormat> output_formats();
const OutputFormat& find_output_format(
    std::string_view name);  // kInvalidArgument
OutputKind kind_of(const OutputFormat& format);

// Stacks of experts in MXFP4, as gpt-oss is published.
inline constexpr std::string_view kMxfp4Format = "mxfp4";

class Checkpoint;
struct EncodedLinear;
// How a format stores a Linear. Throws Error(kUnsupported) naming it and a
// format that can, as ArtifactWriter::add_linear() would.
EncodedLinear encode_linear(std::string_view format, const std::string& name,
                            const LinearWeights& linear);

struct ArtifactOptions {
  std::filesystem::path output{};
  std::string format = "compressed-tensors";
  std::size_t max_shard_bytes = 5'000'000'000;
  // Files of the source directory to carry along byte for byte (tokenizer,
  // generation_config.json, ...) are taken from here when it is a directory or
  // an HDF5 file that carries them.
  std::filesystem::path source{};
  ModuleNames modules{};
  ThreadPool* pool = nullptr;  // that may read and write its files
  // Where several, the writer is the first's, finish() deals the shards of a
  // folder out, and the others wait for theirs in help_writing().
  Ranks ranks{};
  // Not 0: a folder for as long as a run lasts. Its tensors stand in one file in
  // the order in which they come, behind so many octets for a header, are
  // written once (unless the header takes more), not flushed to the disk, and not
  // read back: their hashes are noted in it (written_hashes.h).
  std::size_t passing_room = 0;
  // Not empty: of a folder that one process writes, where its shards are made,
  // beside the output. They stay when writing does not come to its end, with
  // files of that name and more behind it, and a writer of the same tensors that
  // is given it again takes from it by their hashes those that
  // add_stored_tensor() has written.
  std::filesystem::path kept{};
};

// A tensor as it lies in a file.
struct StoredTensor {
  TensorInfo info{};
  // Gives the same octets each time, for as long as the writer lives.
  std::function<TensorBytes()> read{};
  FileRange from{};    // where they lie, if another process may read them there
  std::string hash{};  // content_hash.h; empty: not known
};

// Linears that lie in a checkpoint, and the hashes of tensors that are known.
struct StoredLinears {
  std::shared_ptr<const Checkpoint> checkpoint{};
  TensorHashes hashes{};
};

// What the quantized Linears have in common goes into config.json's
// quantization_config, computed by the writer from the weights it was given.
class ArtifactWriter {
 public:
  virtual ~ArtifactWriter() = default;
  // Tensors and Linears may come in any order; each is spooled to disk at once.
  virtual void add_tensor(const NamedTensor& tensor) = 0;
  virtual void add_linear(std::string_view name,
                          const LinearWeights& linear) = 0;
  // As both above, with octets that lie in files already: they need not be
  // spooled. A Linear is only taken in the form in which it lies there: returns
  // false, and has done nothing, where this format has another. What has another
  // hash than is said fails with Error(kIo), at the latest in finish().
  virtual void add_stored_tensor(const StoredTensor& tensor) = 0;
  virtual bool add_stored_linear(std::string_view name,
                                 const StoredLinears& stored) = 0;
  // Extra files in the directory (attributes of an HDF5 file):
  // "llmpress.json", "recipe.yaml".
  virtual void add_file(std::string_view name, std::string_view content) = 0;
  // Writes config.json (`config_json` is the model's own, as changed by stages,
  // without quantization_config), closes, fsyncs, reads back and compares, and
  // renames into place. Replaces an earlier artifact of the same path only
  // then. Without finish() nothing remains but the temporary folder, which the
  // destructor removes.
  virtual void finish(const std::string& config_json) = 0;
};

// Throws Error(kInvalidArgument) if what is at the output is not an artifact
// that llmpress wrote (replaceable.h), kIo if a parent cannot be created. A
// command asks that, and more, before it works: output_guard.h.
std::unique_ptr<ArtifactWriter> make_artifact_writer(
    const ArtifactOptions& options);

// Of all ranks but the first, while that one writes a folder (options.ranks).
void help_writing(const Ranks& ranks, ThreadPool& pool);

// Writes `content` to what `path` leads to by a temporary name, fsync and
// rename; into a device or pipe as it is.
void write_file_atomically(const std::filesystem::path& path,
                           std::string_view content);
// Throws Error(kIo) with the path and the reason.
std::string read_file(const std::filesystem::path& path);

// Lower-case hex.
std::string sha256_hex(std::string_view bytes);
std::string sha256_of_file(const std::filesystem::path& path);
// Of each part of `part` octets, the last of fewer; of an empty file one.
std::vector<std::string> sha256_of_parts(const std::filesystem::path& path,
                                         std::size_t part, ThreadPool& pool);

}  // namespace llmpress

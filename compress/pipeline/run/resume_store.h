// Finished blocks of an unfinished run, on disk: killed at any moment, a run
// started again goes on from the last finished block.
//
//   <output>.resume/fingerprint        a mark, and what the blocks were made
//   from
//   <output>.resume/block-00003/       a small artifact: Linears, norms,
//   layers.json
//   <output>.resume/linears-00004/     Linears of the block that is next
//   <output>.resume/reduced-0/         the model after structured pruning
//   <output>.resume/reduced-0.steps/   what of it is done so far
//                                      (structured_progress.h)
//   <output>.resume/trained-0/         the model after a stage that trains
//   <output>.resume/trained-0.training/  what such a stage has done so far
//   <output>.resume/rounded/           the model after its last block, where
//                                      stages that train follow; then as above:
//   <output>.resume/recovered-0/, <output>.resume/recovered-0.training/
//   <output>.resume/copied/            shards of a model that is merged
//   <output>.resume/converted/         Linears that a conversion has rounded
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "compress/pipeline/run/block_compressor.h"
#include "compress/pipeline/run/output_resume.h"
#include "formats/checkpoints/artifact_writer.h"

namespace llmpress {

// "<output>.resume" beside the file or folder that `output` leads to.
std::filesystem::path resume_path(const std::filesystem::path& output);

class ResumeStore {
 public:
  // Keeps the blocks found in `directory` if they carry `fingerprint`, lines of
  // "name: value", and `resume` says so, otherwise starts empty. Throws
  // Error(kInvalidArgument) if `directory` is not what an unfinished run left
  // (formats/files/replaceable.h).
  ResumeStore(std::filesystem::path directory, const std::string& fingerprint,
              bool resume);
  // Of `output`; says what changed.
  ResumeStore(const std::filesystem::path& output, const OutputResume& resume);

  // What another rank opened there; it stands on a file system that all ranks
  // share. Throws Error(kIo) if nothing comes in sight within half a minute.
  explicit ResumeStore(std::filesystem::path directory);

  // Names of the fingerprint's lines that differ from those of blocks that were
  // there and are not used for it.
  const std::vector<std::string>& changed() const { return changed_; }
  // A sentence that says so; empty if nothing changed.
  std::string changed_note() const;

  // Whether it is there with the bytes that were written, by their hashes; what
  // is damaged is taken away, and `damaged` set.
  bool has(std::size_t layer, bool& damaged);
  // What no stage changes (BlockWeights::parameters) comes from `source`.
  CompressedBlock load(std::size_t layer, const Architecture& arch,
                       const Checkpoint& source) const;
  // The same without Linears, and what they can be read from, each by its own
  // name.
  CompressedBlock load_rest(std::size_t layer, const Architecture& arch,
                            const Checkpoint& source) const;
  StoredLinears stored(std::size_t layer) const;
  std::unique_ptr<Checkpoint> open(std::size_t layer) const;
  // The reports alone of a block that some rank has saved; as the constructor
  // without a fingerprint if it is not in sight.
  std::vector<LayerReport> layers(std::size_t layer) const;
  // Of a block that is not finished; gone when it is.
  LinearStore linears(std::size_t layer) const;
  // Appears whole or not at all.
  void save(const CompressedBlock& block, std::size_t layer,
            const Architecture& arch, const std::string& config_json);
  // For whatever else a run started again can use.
  const std::filesystem::path& directory() const { return directory_; }
  // After the artifact is in place.
  void remove();

 private:
  std::filesystem::path block_path(std::size_t layer) const;
  std::filesystem::path linears_path(std::size_t layer) const;
  void await(const std::filesystem::path& file) const;
  std::filesystem::path directory_;
  std::vector<std::string> changed_{};
};

}  // namespace llmpress

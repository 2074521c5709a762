// The Linears of a model as they are laid out for the vector kernels
// (laid_out_linear.h), kept in a file beside the model and run where they are
// mapped, so that a model starts without being read and laid out anew, and
// programs that run it share its memory:
//
//   FOLDER/llmpress.prepacked    of a folder
//   FILE.prepacked               of a model in one file
//
// The file is one of safetensors with a tensor of octets for each Linear, each in
// whole vectors of 64 octets from the file's start, and what it was made from in
// its metadata. It belongs to the machine's kind of processor, not to one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "compress/core/parallel.h"
#include "compress/core/progress.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/architecture.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

std::filesystem::path prepacked_path(const std::filesystem::path& model);

class PrepackedWeights {
 public:
  // null, and in `reason` why, if there is no file, or it was made by another
  // version of the program or from other files than are there now, by their
  // names, sizes and times of change. Throws Error(kIo), or kCorruptFile for a
  // damaged file.
  static std::shared_ptr<const PrepackedWeights> open(
      const Checkpoint& checkpoint, std::string& reason);

  // null where a weight has no layout, which is then read as it is stored.
  // Throws Error(kCorruptFile) for octets that are not those written.
  std::unique_ptr<LinearKernel> linear(const Architecture& arch,
                                       std::size_t layer, std::size_t linear,
                                       Isa isa, InputPrecision inputs) const;
  std::unique_ptr<LinearKernel> head(const Architecture& arch, Isa isa,
                                     InputPrecision inputs) const;

 private:
  PrepackedWeights() = default;
  std::unique_ptr<LinearKernel> kernel(const std::string& name, Isa isa,
                                       InputPrecision inputs) const;

  std::string path_{};
  std::unique_ptr<TensorReader> reader_{};
  std::map<std::string, std::string> hashes_{};  // content_hash by Linear
};

// Lays out every Linear, as many at a time as there are threads, and writes the
// file, whole or not at all. Throws Error(kIo), and kInvalidArgument if there is
// a file that is not ours.
void write_prepacked(const Checkpoint& checkpoint, const Architecture& arch,
                     ThreadPool& pool, const Progress& progress);

// The file's, written first where PrepackedWeights::open() finds no use for what
// is there; `log` is told so.
std::shared_ptr<const PrepackedWeights> prepack(
    const Checkpoint& checkpoint, const Architecture& arch, ThreadPool& pool,
    const Progress& progress,
    const std::function<void(const std::string&)>& log);

}  // namespace llmpress

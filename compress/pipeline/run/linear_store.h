// Compressed Linears of a block that is not finished, on disk: a run that was
// killed in a block goes on from the last Linears that were solved together.
#pragma once

#include <cstddef>
#include <filesystem>
#include <utility>

#include "compress/pipeline/run/linear_compressor.h"

namespace llmpress {

class LinearStore {
 public:
  // In `folder`, which is made with the first Linear.
  explicit LinearStore(std::filesystem::path folder)
      : folder_(std::move(folder)) {}

  // Whether it is there with the bytes that were written, by their hash; what is
  // damaged is taken away.
  bool has(std::size_t linear) const;
  LinearOutcome load(std::size_t linear) const;
  // Appears whole or not at all. Not flushed to the disk: what a power cut
  // leaves of it is damaged.
  void save(std::size_t linear, const LinearWeights& weights,
            const LayerReport& report) const;

 private:
  std::filesystem::path path_of(std::size_t linear) const;
  std::filesystem::path folder_;
};

}  // namespace llmpress

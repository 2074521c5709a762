// What structured pruning has done so far, on disk, so that it goes on from there
// when it is started again: which units go, as far as the whole model decides
// that, and the blocks that are cut and healed.
//
//   <directory>/                    a ResumeStore of its own
//     reduced-choices               a hash, and JSON
//     reduced-masks/                a FileTrainingStore of masks that are learned
//     block-00003/                  the reduced block, changed weights in float32
//     reduced-types-00003           what its Linears are to be stored in
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/calibration/dense_block.h"
#include "compress/pipeline/reports/run_report.h"
#include "compress/pipeline/run/resume_store.h"
#include "compress/pipeline/training/training_store.h"
#include "compress/surgery/structured_depth.h"
#include "compress/surgery/structured_hidden.h"

namespace llmpress {

struct StructuredChoices {
  DepthChoice depth{};  // `kept`: all where no block goes
  HiddenChoice hidden{};
  // [layers][units] where the loss of the whole model ranks the units of blocks;
  // empty: each block is measured when it comes.
  std::vector<std::vector<double>> scores{};
};

class StructuredProgress {
 public:
  // As ResumeStore; whoever names `directory` knows that all else is the same.
  explicit StructuredProgress(const std::filesystem::path& directory);

  std::optional<StructuredChoices> choices()
      const;  // absent if not there whole
  void save(const StructuredChoices& choices) const;

  // Whether the block at place `p` of the reduced model is there.
  bool has(std::size_t p);
  struct ReducedBlock {
    DenseBlock block{};
    std::vector<LayerReport> reports{};
  };
  // `parameters` as the block had them; all Linears are read.
  ReducedBlock load(std::size_t p, const Architecture& reduced,
                    const DenseBlock& dense, ThreadPool& pool) const;
  void save(std::size_t p, const Architecture& reduced,
            const std::string& config_json, const DenseBlock& block,
            const std::vector<LayerReport>& reports);
  // Of masks, and of the weights that learn along.
  TrainingStore& masks() { return masks_; }
  void remove() { store_.remove(); }

 private:
  std::filesystem::path types_path(std::size_t p) const;
  ResumeStore store_;
  FileTrainingStore masks_;
};

}  // namespace llmpress

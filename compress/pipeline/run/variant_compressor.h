// One variant of a recipe: every block compressed, the artifact written and in
// place.
#pragma once

#include <string>

#include "compress/calibration/calibration_size.h"
#include "compress/calibration/calibration_text.h"
#include "compress/calibration/stage_plan.h"
#include "compress/pipeline/run/kept_inputs.h"
#include "compress/pipeline/run/run.h"
#include "formats/checkpoints/checkpoint.h"

namespace llmpress {

// What all variants of a run share.
struct RunInputs {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const CalibrationSet* calibration = nullptr;  // null: none in the recipe
  std::string model_sha256{}, tokenizer_sha256{};
  std::string recipe_yaml{};  // resolved
  std::string kernels{};      // whose sums differ in their last bits
};

struct VariantJob {
  std::string name{};
  OutputConfig output{};
  StagePlan plan;
  std::vector<std::string> warnings{};  // of output_check.h
  // Where calibration states lie; empty: in memory.
  std::filesystem::path scratch{};
  bool streams_evaluation = false;  // models are evaluated block by block
};

// With a share of the calibration tokens as large as the largest of a rank, and
// the uncompressed model beside it or not.
KeptInputs kept_inputs(const VariantJob& job, CalibrationSize of_rank,
                       bool reference);

// Throws as run_recipe() does.
VariantReport compress_variant(const RunInputs& inputs, const VariantJob& job,
                               const RunOptions& options, ThreadPool& pool);

// A Linear's result on the console.
std::string layer_line(const LayerReport& layer);

}  // namespace llmpress

// One variant of a recipe: every block compressed, the artifact written and in
// place.
#pragma once

#include <string>

#include "compress/calibration/calibration_text.h"
#include "compress/calibration/stage_plan.h"
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
};

// Throws as run_recipe() does.
VariantReport compress_variant(const RunInputs& inputs, const VariantJob& job,
                               const RunOptions& options, ThreadPool& pool);

// Of all that decides what a variant becomes: what is left of an interrupted
// run counts if it carries the same.
std::string fingerprint_of(const RunInputs& inputs, const VariantJob& job);

// What an artifact was made from, for whoever finds it: llmpress.json.
std::string provenance_of(const RunInputs& inputs, const std::string& variant);

// A Linear's result on the console.
std::string layer_line(const LayerReport& layer);

// What calibration must collect for some Linear of the model.
StatsNeeds needs_of_plan(const StagePlan& plan, const Architecture& arch);

// Whether the calibration tokens run through the uncompressed model too.
bool wants_reference(const StagePlan& plan, const Architecture& arch);

// What a variant makes of calibration: nothing; figures for the report, if
// there is some (outliers of LLM.int8()); or it cannot do without.
enum class CalibrationUse { kNone, kReport, kNeeded };
CalibrationUse calibration_use(const StagePlan& plan, const Architecture& arch);
// The same without the stages that ran before, on the whole model.
CalibrationUse calibration_use_of_blocks(const StagePlan& plan,
                                         const Architecture& arch);

}  // namespace llmpress

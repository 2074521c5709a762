// One variant of a recipe: every block compressed, the artifact written and in
// place.
#pragma once

#include <string>

#include "compress/pipeline/calibration_text.h"
#include "compress/pipeline/run.h"
#include "compress/pipeline/stage_plan.h"
#include "formats/checkpoint.h"

namespace llmpress {

// What all variants of a run share.
struct RunInputs {
  const Checkpoint* checkpoint = nullptr;
  const Architecture* arch = nullptr;
  const CalibrationSet* calibration = nullptr;  // null: none in the recipe
  std::string model_sha256{}, tokenizer_sha256{};
  std::string recipe_yaml{};  // resolved
};

struct VariantJob {
  std::string name{};
  OutputConfig output{};
  StagePlan plan;
};

// Throws as run_recipe() does.
VariantReport compress_variant(const RunInputs& inputs, const VariantJob& job,
                               const RunOptions& options, ThreadPool& pool);

// Whether some Linear's treatment asks for calibration inputs.
bool needs_calibration(const StagePlan& plan, const Architecture& arch);

}  // namespace llmpress

// What `run` and `plan` read from a recipe before they part ways.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "compress/pipeline/model_source.h"
#include "compress/pipeline/variant_compressor.h"
#include "formats/output_guard.h"
#include "recipes/recipe.h"

namespace llmpress {

// One job a result of the recipe. Throws Error(kInvalidArgument) for a result
// without an output.
std::vector<VariantJob> jobs_of(const Recipe& recipe);

// What a run reads, and what it writes: the artifacts, what it keeps beside
// them while it works, the report, and `json` where the caller writes one.
std::vector<InputPath> inputs_of(const Recipe& recipe);
std::vector<OutputPath> outputs_of(const Recipe& recipe,
                                   const std::vector<VariantJob>& jobs,
                                   const std::filesystem::path& json);

// Throws Error(kInvalidArgument) if the recipe names no model.
ModelSource open_recipe_model(const Recipe& recipe);

// A recipe's name: its `name`, or the stem of its file.
std::string result_name(const Recipe& recipe);

// Bytes that compressing with so many calibration tokens (0: none) takes at its
// peak: one block in its forms, the activations, one second moment; of two
// models where one is compared with the other.
std::size_t predicted_peak_bytes(const StagePlan& plan,
                                 const Architecture& arch,
                                 std::size_t calibration_tokens);

}  // namespace llmpress

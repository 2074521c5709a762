// What `run` and `plan` read from a recipe before they part ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/calibration_size.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/evaluation/evaluation.h"
#include "compress/pipeline/run/memory_model.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "formats/files/output_guard.h"
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

// Where the model of a recipe that trains one from nothing stands meanwhile.
std::filesystem::path untrained_path(std::span<const VariantJob> jobs);

// Everything that a text can be wrong about is found before work starts.
struct RunTexts {
  std::optional<CalibrationSet> calibration{};  // if some job uses it
  std::optional<EvaluationText> evaluation{};
};
RunTexts load_texts(const Recipe& recipe, std::span<const VariantJob> jobs,
                    const ModelSource& model);

// What can be known of the jobs before their first block: shapes, calibration,
// what the output's format can hold and who loads it. Fills in `warnings` and
// what `output.incompatible` changes. Throws Error for what cannot be done.
void check_jobs(const Recipe& recipe, std::span<VariantJob> jobs,
                const ModelSource& model, ThreadPool& pool);

// Of the options, else of the recipe; 0: none.
std::uint64_t memory_limit_of(const Recipe& recipe, const RunOptions& options);

// Of the windows that the recipe's evaluation runs.
std::size_t evaluated_tokens(const Recipe& recipe, const RunTexts& texts);

// What a job takes of memory.
MemoryNeed memory_need_of(const VariantJob& job, const Recipe& recipe,
                          const ModelSource& model, CalibrationSize calibration,
                          std::size_t evaluated_tokens);

// Of that, what a job takes with `scratch` and `streams_evaluation` as they are.
std::size_t peak_of(const VariantJob& job, const MemoryNeed& need);

// Sets `scratch` of the jobs whose calibration states do not fit into memory
// under the limit of the options or the recipe, and `streams_evaluation` where
// evaluated models do not, and says so. Throws
// Error(kResource) for a job that needs more in any case, with the smallest
// limit that would do.
std::vector<std::string> settle_memory(std::span<VariantJob> jobs,
                                       const Recipe& recipe,
                                       const RunOptions& options,
                                       const ModelSource& model,
                                       CalibrationSize calibration,
                                       std::size_t evaluated_tokens);

// A recipe's name: its `name`, or the stem of its file.
std::string result_name(const Recipe& recipe);

}  // namespace llmpress

// What `run` and `plan` read from a recipe before they part ways.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "compress/calibration/calibration_text.h"
#include "compress/model/model_source.h"
#include "compress/pipeline/evaluation/evaluation.h"
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

// What calibration makes blocks keep: all tokens, and those of a sequence.
struct CalibrationSize {
  std::size_t tokens = 0, sequence_tokens = 0;
};
CalibrationSize size_of(const std::optional<CalibrationSet>& calibration);

// Throws Error(kResource) for a job that needs more than `limit` bytes (0:
// any).
void check_memory(std::span<const VariantJob> jobs, const Architecture& arch,
                  CalibrationSize calibration, std::uint64_t limit);

// A recipe's name: its `name`, or the stem of its file.
std::string result_name(const Recipe& recipe);

// Bytes that compressing with so much calibration (0: none) takes at its peak:
// one block in its forms, the activations, one second moment; of two models
// where one is compared with the other; what a block that learns keeps.
std::size_t predicted_peak_bytes(const StagePlan& plan,
                                 const Architecture& arch,
                                 CalibrationSize calibration);

}  // namespace llmpress

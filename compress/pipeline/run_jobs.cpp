#include "compress/pipeline/run_jobs.h"

#include <filesystem>
#include <optional>
#include <span>

#include "compress/core/error.h"
#include "compress/pipeline/resume_store.h"
#include "formats/artifact_writer.h"

namespace llmpress {

std::string result_name(const Recipe& recipe) {
  if (!recipe.name.empty()) return recipe.name;
  return std::filesystem::path(recipe.origin).stem().string();
}

std::vector<VariantJob> jobs_of(const Recipe& recipe) {
  std::vector<VariantJob> jobs;
  const auto add = [&](const std::string& name,
                       const std::optional<OutputConfig>& output,
                       std::span<const Stage> own) {
    if (!output) {
      throw Error(ErrorCode::kInvalidArgument,
                  recipe.origin + ": '" + name +
                      "' has no output; write output: {path: ...} or give "
                      "--output");
    }
    (void)find_output_format(output->format);  // refuses what is not written
    jobs.push_back({name, *output, StagePlan(recipe.stages, own)});
  };
  if (recipe.variants.empty()) add(result_name(recipe), recipe.output, {});
  for (const Variant& variant : recipe.variants) {
    add(variant.name, variant.output, variant.stages);
  }
  return jobs;
}

std::vector<InputPath> inputs_of(const Recipe& recipe) {
  std::vector<InputPath> inputs{{"the model", recipe.model},
                                {"the recipe", recipe.origin}};
  if (recipe.calibration) {
    inputs.push_back({"the calibration text", recipe.calibration->text});
  }
  if (recipe.evaluate) {
    inputs.push_back({"the evaluation text", recipe.evaluate->text});
  }
  const auto add_adapters = [&](const std::vector<Stage>& stages) {
    for (const Stage& stage : stages) {
      const auto* merge = std::get_if<MergeLoraStage>(&stage);
      if (merge != nullptr) inputs.push_back({"the adapter", merge->adapter});
    }
  };
  add_adapters(recipe.stages);
  for (const Variant& variant : recipe.variants) add_adapters(variant.stages);
  return inputs;
}

std::vector<OutputPath> outputs_of(const Recipe& recipe,
                                   const std::vector<VariantJob>& jobs,
                                   const std::filesystem::path& json) {
  std::vector<OutputPath> outputs;
  for (const VariantJob& job : jobs) {
    const std::string of = job.name.empty() ? "" : " of '" + job.name + "'";
    outputs.push_back({"the output" + of, job.output.path,
                       kind_of(find_output_format(job.output.format))});
    outputs.push_back({"the folder for finished blocks" + of,
                       resume_path(job.output.path), OutputKind::kResume});
  }
  if (recipe.report) {
    outputs.push_back({"the report", *recipe.report, OutputKind::kReport});
  }
  outputs.push_back({"the file of --json", json, OutputKind::kJsonFile});
  return outputs;
}

ModelSource open_recipe_model(const Recipe& recipe) {
  if (recipe.model.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        recipe.origin + ": no model; write model: PATH or give --model");
  }
  return open_model(recipe.model);
}

}  // namespace llmpress

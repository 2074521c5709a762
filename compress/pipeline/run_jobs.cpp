#include "compress/pipeline/run_jobs.h"

#include <filesystem>
#include <optional>
#include <span>

#include "compress/core/error.h"
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

ModelSource open_recipe_model(const Recipe& recipe) {
  if (recipe.model.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        recipe.origin + ": no model; write model: PATH or give --model");
  }
  return open_model(recipe.model);
}

}  // namespace llmpress

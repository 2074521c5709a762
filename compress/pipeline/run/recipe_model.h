// The model that a recipe starts from.
#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "compress/core/ranks.h"
#include "compress/pipeline/run/variant_compressor.h"
#include "formats/checkpoints/checkpoint.h"
#include "recipes/recipe.h"

namespace llmpress {

// What `model` names. A folder with a config.json and a tokenizer but without
// weights will do where the first stage of every result trains a student of
// given shape (`student: {config}`): the model is then that student, untrained,
// written to `scratch`, by the first rank, for as long as its object lives.
class RecipeModel {
 public:
  // Throws Error(kInvalidArgument) if the recipe names no model, else as
  // open_checkpoint() and write_random_model().
  RecipeModel(const Recipe& recipe, std::span<const VariantJob> jobs,
              std::filesystem::path scratch, const Ranks& ranks = {});
  ~RecipeModel();
  RecipeModel(const RecipeModel&) = delete;
  RecipeModel& operator=(const RecipeModel&) = delete;

  std::unique_ptr<Checkpoint> open() const;

 private:
  std::filesystem::path path_;
  std::filesystem::path scratch_{};  // to be removed; empty: none
};

}  // namespace llmpress

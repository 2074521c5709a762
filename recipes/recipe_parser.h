// Reads a recipe: strict YAML -> Recipe. An unknown, misplaced or repeated key,
// a value of the wrong type or out of range, and keys that contradict each
// other are Error(kInvalidArgument) with file, line and column, before any
// work:
//
//   recipe.yaml:12:7: unknown key 'bitz' in 'weights'; did you mean 'bits'?
//
// Relative paths are relative to the recipe's folder. Every key with its
// meaning: docs/recipe.md, tested against recipe_keys().
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/recipe.h"

namespace llmpress {

// What the command line says over the recipe.
struct RecipeOverrides {
  // "stages.0.quantize.weights.bits=3": a path of keys and list indices, and a
  // YAML value. Applied to the tree in order, before anything is checked; the
  // keys are then checked like those of the file.
  std::vector<std::string> set{};
  std::filesystem::path model{};  // replaces `model`; relative to the caller
  // Replaces output.path; with variants, variant v goes to output / v.
  std::filesystem::path output{};
};

// `origin` names the recipe in messages and its parent folder resolves relative
// paths ("" : the current folder).
Recipe parse_recipe(const std::string& text,
                    const std::filesystem::path& origin,
                    const RecipeOverrides& overrides = {});
// Throws Error(kIo) if the file cannot be read.
Recipe load_recipe(const std::filesystem::path& path,
                   const RecipeOverrides& overrides = {});

// A recipe that says all that `recipe` means, defaults and absolute paths
// written out; parse_recipe() of it gives an equal Recipe.
std::string resolved_yaml(const Recipe& recipe);

// Every key that the parser knows, with the section that it belongs to: what
// docs/recipe.md must mention.
struct RecipeKey {
  std::string_view section;  // "weights"; "" at the top
  std::string_view key;      // "bits"
};
std::vector<RecipeKey> recipe_keys();

// The presets of `quantize: {scheme: ...}`.
std::vector<std::string_view> scheme_names();

}  // namespace llmpress

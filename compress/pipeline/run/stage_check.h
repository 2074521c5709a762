// What a recipe asks for beside what would be done: stages that would be passed
// over, names that match nothing.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

// A module that a stage may select.
struct Module {
  std::string name{};
  ModuleRole role = ModuleRole::kBlockLinear;
  std::size_t out = 0, in = 0;
};

// `arch` as structured pruning leaves it. Throws Error(kInvalidArgument) for a
// stage that selects nothing, two stages of a kind that select one Linear, a
// glob among the names.
void check_selections(const StagePlan& plan, const Architecture& arch);
void check_selections(const StagePlan& plan, std::span<const Module> modules);

// One sentence for each entry of `targets` and `ignore` that matches no module,
// and for each group of Linears whose scales a stage would move but does not,
// since it rounds them in different ways.
std::vector<std::string> selection_notes(const StagePlan& plan,
                                         const Architecture& arch);
std::vector<std::string> selection_notes(const StagePlan& plan,
                                         std::span<const Module> modules);

}  // namespace llmpress

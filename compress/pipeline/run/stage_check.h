// What a recipe asks for beside what would be done: stages that would be passed
// over, names that match nothing.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compress/calibration/stage_plan.h"
#include "compress/model/architecture.h"
#include "recipes/recipe.h"

namespace llmpress {

// `arch` as structured pruning leaves it. Throws Error(kInvalidArgument) for a
// stage that selects nothing, two stages of a kind that select one Linear, a
// glob among the names.
void check_selections(const StagePlan& plan, const Architecture& arch);

// One sentence for each entry of `targets` and `ignore` that matches no module,
// and for each group of Linears whose scales a stage would move but does not,
// since it rounds them in different ways.
std::vector<std::string> selection_notes(const StagePlan& plan,
                                         const Architecture& arch);

}  // namespace llmpress

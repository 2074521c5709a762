// What a recipe asks for beside what would be done: stages whose order would
// not be kept, stages that would be passed over, names that match nothing.
//
// A plan acts in one order: transforms of the whole model as the recipe orders
// them, then block by block smoothing, pruning and rounding. A recipe in
// another order means something else and is refused.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compress/model/architecture.h"
#include "compress/pipeline/stage_plan.h"
#include "recipes/recipe.h"

namespace llmpress {

// Throws Error(kInvalidArgument) naming both stages and their places where
// carrying out `stages` would change their order or leave one out.
void check_order(std::span<const Stage* const> stages);

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

// Whether stages can be carried out in the order in which a recipe has them.
//
// A plan acts in one order: transforms of the whole model as the recipe orders
// them, then block by block smoothing, pruning and rounding, then training of
// what is packed. A recipe in another order means something else and is refused.
#pragma once

#include <span>

#include "recipes/recipe.h"

namespace llmpress {

// Throws Error(kInvalidArgument) naming both stages and their places where
// carrying out `stages` would change their order or leave one out.
void check_order(std::span<const Stage* const> stages);

}  // namespace llmpress

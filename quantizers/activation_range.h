// Fixes the grid (compress/core/activation_grid.h) of a Linear's input where
// the recipe asks for a static one. An input that was always 0 gets s = 1.
// Dynamic grids are found at run time.
#pragma once

#include <string_view>

#include "compress/core/input_stats.h"
#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"

namespace llmpress {

// `input` with static_scale and static_zero filled in. Throws
// Error(kInvalidArgument) if a static range is asked for without statistics, or
// for bits that no kernel knows.
ActivationQuant resolve_activation(const ActivationQuant& input,
                                   const InputStats* stats,
                                   std::string_view name);

// X [tokens, in] rounded to the grid of `input` and back, as the Linear will
// see it; kTensor takes the range of all of X. Columns at or above the outlier
// threshold stay as they are. The plain arithmetic, to measure methods with.
void round_activations_in_place(MatrixView<float> X,
                                const ActivationQuant& input);

// What resolve_activation needs to be collected.
StatsNeeds activation_needs(const ActivationQuant& input);

}  // namespace llmpress

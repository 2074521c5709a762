// The rounding that follows a method that does not round itself: the row of the
// method table that config.solver names, one that `solves`.
#pragma once

#include "quantizers/method.h"

namespace llmpress {

// Throw Error(kInvalidArgument) for another solver.
const QuantizerMethod& solver_of(const QuantizeConfig& config);
StatsNeeds solver_needs(const QuantizeConfig& config);
QuantizeResult run_solver(const QuantizeRequest& request);

}  // namespace llmpress

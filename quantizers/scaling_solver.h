// The rounding that follows a scaling method (AWQ, SmoothQuant): the row of the
// method table that config.solver names, "rtn" or "gptq".
#pragma once

#include "quantizers/method.h"

namespace llmpress {

// Throw Error(kInvalidArgument) for another solver.
StatsNeeds solver_needs(const QuantizeConfig& config);
QuantizeResult run_solver(const QuantizeRequest& request);

}  // namespace llmpress

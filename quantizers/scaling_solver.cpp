#include "quantizers/scaling_solver.h"

#include <string>

#include "compress/core/formatted.h"

namespace llmpress {

const QuantizerMethod& solver_of(const QuantizeConfig& config) {
  std::string known;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (!method.solves) continue;
    if (method.name == config.solver) return method;
    known += (known.empty() ? "" : " or ") + std::string(method.name);
  }
  fail(ErrorCode::kInvalidArgument, "quantize: solver '{}' is not {}",
       config.solver, known);
}

StatsNeeds solver_needs(const QuantizeConfig& config) {
  return solver_of(config).needs(config);
}

QuantizeResult run_solver(const QuantizeRequest& request) {
  return solver_of(*request.config).quantize(request);
}

}  // namespace llmpress

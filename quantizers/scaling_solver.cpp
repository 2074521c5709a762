#include "quantizers/scaling_solver.h"

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

const QuantizerMethod& solver_of(const QuantizeConfig& config) {
  if (config.solver == "rtn" || config.solver == "gptq") {
    return find_quantizer_method(config.solver);
  }
  fail(ErrorCode::kInvalidArgument, "quantize: solver '{}' is not rtn or gptq",
       config.solver);
}

}  // namespace

StatsNeeds solver_needs(const QuantizeConfig& config) {
  return solver_of(config).needs(config);
}

QuantizeResult run_solver(const QuantizeRequest& request) {
  return solver_of(*request.config).quantize(request);
}

}  // namespace llmpress

#include "quantizers/method.h"

#include <algorithm>
#include <array>
#include <string>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "quantizers/autoround.h"
#include "quantizers/awq.h"
#include "quantizers/bit_allocation.h"
#include "quantizers/efficientqat.h"
#include "quantizers/gptq.h"
#include "quantizers/hqq.h"
#include "quantizers/llm_int8.h"
#include "quantizers/omniquant.h"
#include "quantizers/quantize_result.h"
#include "quantizers/rtn.h"
#include "quantizers/scaling_solver.h"
#include "quantizers/smoothquant.h"
#include "quantizers/table4.h"

namespace llmpress {
std::span<const QuantizerMethod> quantizer_methods() {
  static const std::array kMethods{
      rtn_method(),          gptq_method(),        imatrix_method(),
      awq_method(),          smoothquant_method(), llm_int8_method(),
      nf4_method(),          hqq_method(),         autoround_method(),
      efficientqat_method(), omniquant_method(),   auto_method(),
  };
  return kMethods;
}

const QuantizerMethod& find_quantizer_method(std::string_view name) {
  std::string known;
  for (const QuantizerMethod& method : quantizer_methods()) {
    if (method.name == name) return method;
    known += (known.empty() ? "" : ", ") + std::string(method.name);
  }
  fail(ErrorCode::kInvalidArgument, "quantize: method '{}' is not one of {}",
       name, known);
}

const QuantizerMethod& method_of(const QuantizeConfig& config) {
  return find_quantizer_method(config.method);
}

const QuantizerMethod& rounding_method(const QuantizeConfig& config) {
  const QuantizerMethod& method = method_of(config);
  return method.delegates() ? solver_of(config) : method;
}

QuantizeConfig without_calibration(const QuantizeConfig& config) {
  if (!any(method_of(config).needs(config))) return config;
  QuantizeConfig nearest = config;
  nearest.method = rtn_method().name;
  return nearest;
}

QuantizeResult quantize_weight(const QuantizeRequest& request) {
  return with_fitting_scales(*request.config,
                             [&](const QuantizeConfig& config) {
                               QuantizeRequest fitting = request;
                               fitting.config = &config;
                               return method_of(config).quantize(fitting);
                             });
}

}  // namespace llmpress

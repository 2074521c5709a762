#include "quantizers/quantize_result.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "quantizers/activation_range.h"
#include "quantizers/int_grid.h"
#include "quantizers/weight_error.h"

namespace llmpress {
bool scales_fit(const PackedWeight& weight) {
  constexpr float kLargestF16 = 65504.0f;
  constexpr float kCoarseF16 = 0x1p-18f;
  return scale_type_of(weight) != DType::kF16 ||
         std::ranges::all_of(scales_of(weight), [](float s) {
           return std::abs(s) >= kCoarseF16 && std::abs(s) < kLargestF16;
         });
}

QuantizeResult with_fitting_scales(
    const QuantizeConfig& config,
    const std::function<QuantizeResult(const QuantizeConfig&)>& quantize) {
  QuantizeResult result = quantize(config);
  if (scales_fit(result.weight)) return result;
  QuantizeConfig wider = config;
  wider.weights.scale_dtype = DType::kF32;
  result = quantize(wider);
  result.notes.push_back("scales stored as f32: f16 does not hold them");
  return result;
}

ConstMatrixView second_moment_of(const QuantizeRequest& request) {
  if (request.stats == nullptr) return {};
  return request.stats->second_moment.view();
}

QuantizeResult finish_result(const QuantizeRequest& request,
                             PackedWeight weight, double known_error) {
  const std::span<const float> scales = scales_of(weight);
  if (!std::ranges::all_of(scales, [](float s) { return std::isfinite(s); })) {
    fail(ErrorCode::kNumeric, "{}: a scale is not finite", request.name);
  }
  QuantizeResult result{.input = resolve_activation(
                            request.config->input, request.stats, request.name),
                        .output_error = known_error,
                        .notes = scale_notes(scales, scale_type_of(weight))};
  if (known_error < 0) {
    result.output_error =
        difference_of(request.W, weight, second_moment_of(request),
                      *request.pool)
            .output_error;
  }
  result.weight = std::move(weight);
  return result;
}

}  // namespace llmpress

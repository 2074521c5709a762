#include "quantizers/quantize_result.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "quantizers/activation_range.h"
#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

struct ScalesOf {
  std::span<const float> operator()(const GroupedIntWeight& w) const {
    return w.scales;
  }
  std::span<const float> operator()(const Int8Weight& w) const {
    return w.scales;
  }
  std::span<const float> operator()(const Fp8Weight& w) const {
    return w.scales;
  }
  std::span<const float> operator()(const Table4Weight& w) const {
    return w.absmax;
  }
  template <class Other>
  std::span<const float> operator()(const Other&) const {
    return {};
  }
};

struct ScaleTypeOf {
  DType operator()(const GroupedIntWeight& w) const { return w.scale_dtype; }
  DType operator()(const Int8Weight& w) const { return w.scale_dtype; }
  DType operator()(const Fp8Weight& w) const { return w.scale_dtype; }
  template <class Other>
  DType operator()(const Other&) const {
    return DType::kF32;
  }
};

}  // namespace

DType scale_type_of(const PackedWeight& weight) {
  return std::visit(ScaleTypeOf{}, weight);
}

bool scales_fit(const PackedWeight& weight) {
  constexpr float kLargestF16 = 65504.0f;
  constexpr float kCoarseF16 = 0x1p-18f;
  return scale_type_of(weight) != DType::kF16 ||
         std::ranges::all_of(std::visit(ScalesOf{}, weight), [](float s) {
           return s >= kCoarseF16 && s < kLargestF16;
         });
}

ConstMatrixView second_moment_of(const QuantizeRequest& request) {
  if (request.stats == nullptr) return {};
  return request.stats->second_moment.view();
}

QuantizeResult finish_result(const QuantizeRequest& request,
                             PackedWeight weight, double known_error) {
  const std::span<const float> scales = std::visit(ScalesOf{}, weight);
  if (!std::ranges::all_of(scales, [](float s) { return std::isfinite(s); })) {
    fail(ErrorCode::kNumeric, "{}: a scale is not finite", request.name);
  }
  QuantizeResult result{.input = resolve_activation(
                            request.config->input, request.stats, request.name),
                        .output_error = known_error,
                        .notes = scale_notes(scales, scale_type_of(weight))};
  if (known_error < 0) {
    result.output_error =
        output_error(request.W, dequantize(weight).view(),
                     second_moment_of(request), *request.pool);
  }
  result.weight = std::move(weight);
  return result;
}

}  // namespace llmpress

#include "compress/core/activation_grid.h"

#include <cmath>
#include <limits>

#include "compress/core/float_formats.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Below this a quotient overflows; values that small are zeros.
constexpr float kSmallestScale = std::numeric_limits<float>::min();

float steps_of(const ActivationQuant& quant) {
  return static_cast<float>((1 << quant.bits) - 1);
}

std::string range_name(const ActivationQuant& quant) {
  switch (quant.range) {
    case ActivationQuant::Range::kToken:
      return "token";
    case ActivationQuant::Range::kGroup:
      return formatted("g{}", quant.group_size);
    case ActivationQuant::Range::kTensor:
      return "tensor";
    case ActivationQuant::Range::kStatic:
      return "static";
  }
  return {};
}

}  // namespace

std::string describe_rounding(const ActivationQuant& quant) {
  if (quant.kind == ActivationQuant::Kind::kNone) return {};
  const bool floating = quant.kind == ActivationQuant::Kind::kFp8;
  return formatted("{}{} {}{}", floating ? "fp" : "int",
                   floating ? 8 : quant.bits, range_name(quant),
                   quant.symmetric ? "" : " asym");
}

ActivationGrid static_activation_grid(const ActivationQuant& quant, float scale,
                                      std::int32_t zero) {
  const auto half = static_cast<float>(1 << (quant.bits - 1));
  return {.scale = std::max(scale, kSmallestScale),
          .zero = static_cast<float>(zero),
          .floating = quant.kind == ActivationQuant::Kind::kFp8,
          .lowest = -half,
          .highest = half - 1};
}

ActivationGrid fit_activation_grid(const ActivationQuant& quant, float min,
                                   float max) {
  min = std::min(min, 0.0f);
  max = std::max(max, 0.0f);
  const float largest = std::max(-min, max);
  if (quant.kind == ActivationQuant::Kind::kFp8) {
    return static_activation_grid(quant, largest / kE4M3Max, 0);
  }
  const float steps = steps_of(quant);
  if (quant.symmetric) {
    const float levels =
        quant.outlier_threshold > 0 ? (steps - 1) / 2 : steps / 2;
    return static_activation_grid(quant, largest / levels, 0);
  }
  // Each end on its own, so that the difference does not overflow.
  const float whole = max - min;
  const float scale =
      std::isfinite(whole) ? whole / steps : max / steps - min / steps;
  ActivationGrid grid = static_activation_grid(quant, scale, 0);
  grid.zero = std::nearbyint(
      std::clamp(grid.lowest - min / grid.scale, grid.lowest, grid.highest));
  return grid;
}

}  // namespace llmpress

#include "quantizers/activation_range.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"

namespace llmpress {
namespace {

float positive_scale(float scale) {
  return scale > 0 && std::isfinite(scale) ? scale : 1.0f;
}

float largest(const std::vector<float>& values) {
  return values.empty() ? 0.0f
                        : std::max(0.0f, *std::ranges::max_element(values));
}

}  // namespace

ActivationQuant resolve_activation(const ActivationQuant& input,
                                   const InputStats* stats,
                                   std::string_view name) {
  using Kind = ActivationQuant::Kind;
  ActivationQuant resolved = input;
  if (input.kind == Kind::kInt && input.bits != 4 && input.bits != 8) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(name) + ": input: bits is " +
                    std::to_string(input.bits) + ", need 4 or 8");
  }
  if (input.kind == Kind::kNone ||
      input.range != ActivationQuant::Range::kStatic) {
    return resolved;
  }
  if (stats == nullptr || stats->abs_max.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        std::string(name) + ": input: a static range needs calibration data");
  }
  if (input.kind == Kind::kFp8) {
    resolved.static_scale = positive_scale(largest(stats->abs_max) / kE4M3Max);
    return resolved;
  }
  const auto q_max = static_cast<float>((1 << (input.bits - 1)) - 1);
  if (input.symmetric) {
    resolved.static_scale = positive_scale(largest(stats->abs_max) / q_max);
    return resolved;
  }
  const float hi = largest(stats->max);
  const float lo = stats->min.empty()
                       ? 0.0f
                       : std::min(0.0f, *std::ranges::min_element(stats->min));
  resolved.static_scale = positive_scale((hi - lo) / (2 * q_max));
  resolved.static_zero = static_cast<std::int32_t>(std::clamp(
      std::nearbyint(-q_max - lo / resolved.static_scale), -q_max, q_max));
  return resolved;
}

StatsNeeds activation_needs(const ActivationQuant& input) {
  return {.channel_moments = input.kind != ActivationQuant::Kind::kNone &&
                             input.range == ActivationQuant::Range::kStatic};
}

}  // namespace llmpress

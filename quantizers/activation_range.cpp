#include "quantizers/activation_range.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

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

float smallest(const std::vector<float>& values) {
  return values.empty() ? 0.0f
                        : std::min(0.0f, *std::ranges::min_element(values));
}

struct Range {
  float lo = 0, hi = 0;
};

struct ActivationGrid {
  float scale = 1, zero = 0;
};

float top_code(const ActivationQuant& input) {
  return static_cast<float>((1 << (input.bits - 1)) - 1);
}

ActivationGrid grid_of(const Range& range, const ActivationQuant& input) {
  const float size = std::max(-range.lo, range.hi);
  if (input.kind == ActivationQuant::Kind::kFp8) {
    return {positive_scale(size / kE4M3Max), 0};
  }
  const float top = top_code(input);
  if (input.symmetric) return {positive_scale(size / top), 0};
  const float scale = positive_scale((range.hi - range.lo) / (2 * top));
  return {scale,
          std::clamp(std::nearbyint(-top - range.lo / scale), -top, top)};
}

float rounded(float x, const ActivationGrid& grid,
              const ActivationQuant& input) {
  if (input.kind == ActivationQuant::Kind::kFp8) {
    return grid.scale * e4m3_to_float(e4m3_from_float(x / grid.scale));
  }
  const float top = top_code(input);
  const float q =
      std::clamp(std::nearbyint(x / grid.scale) + grid.zero, -top, top);
  return grid.scale * (q - grid.zero);
}

std::vector<bool> outlier_columns(ConstMatrixView X, float threshold) {
  std::vector<bool> outlier(X.cols());
  for (std::size_t t = 0; t < X.rows() && threshold > 0; ++t) {
    for (std::size_t i = 0; i < X.cols(); ++i) {
      if (std::abs(X(t, i)) >= threshold) outlier[i] = true;
    }
  }
  return outlier;
}

// Of a whole number of rows without their outlier columns, and 0.
Range range_of(std::span<const float> x, const std::vector<bool>& outlier) {
  Range range;
  for (std::size_t k = 0; k < x.size(); ++k) {
    if (outlier[k % outlier.size()]) continue;
    range.lo = std::min(range.lo, x[k]);
    range.hi = std::max(range.hi, x[k]);
  }
  return range;
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
  const bool two_sided = !input.symmetric && !stats->min.empty();
  const Range range{two_sided ? smallest(stats->min) : -largest(stats->abs_max),
                    two_sided ? largest(stats->max) : largest(stats->abs_max)};
  const ActivationGrid grid = grid_of(range, input);
  resolved.static_scale = grid.scale;
  resolved.static_zero = static_cast<std::int32_t>(grid.zero);
  return resolved;
}

void round_activations_in_place(MatrixView<float> X,
                                const ActivationQuant& input) {
  if (input.kind == ActivationQuant::Kind::kNone) return;
  const std::vector<bool> outlier = outlier_columns(X, input.outlier_threshold);
  ActivationGrid grid{input.static_scale,
                      static_cast<float>(input.static_zero)};
  if (input.range == ActivationQuant::Range::kTensor) {
    grid = grid_of(range_of(X.data(), outlier), input);
  }
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const std::span<float> x = X.row(t);
    if (input.range == ActivationQuant::Range::kToken) {
      grid = grid_of(range_of(x, outlier), input);
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (!outlier[i]) x[i] = rounded(x[i], grid, input);
    }
  }
}

StatsNeeds activation_needs(const ActivationQuant& input) {
  return {.channel_moments = input.kind != ActivationQuant::Kind::kNone &&
                             input.range == ActivationQuant::Range::kStatic};
}

}  // namespace llmpress

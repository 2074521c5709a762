#include "quantizers/activation_range.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "compress/core/activation_grid.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

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

std::vector<bool> outlier_columns(ConstMatrixView X, float threshold) {
  std::vector<bool> outlier(X.cols());
  for (std::size_t t = 0; t < X.rows() && threshold > 0; ++t) {
    for (std::size_t i = 0; i < X.cols(); ++i) {
      if (std::abs(X(t, i)) >= threshold) outlier[i] = true;
    }
  }
  return outlier;
}

// Of a whole number of rows, or of a part of one from column `begin` on, without
// outlier columns, and 0.
Range range_of(std::span<const float> x, const std::vector<bool>& outlier,
               std::size_t begin = 0) {
  Range range;
  for (std::size_t k = 0; k < x.size(); ++k) {
    if (outlier[(begin + k) % outlier.size()]) continue;
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
    fail(ErrorCode::kInvalidArgument, "{}: input: bits is {}, need 4 or 8",
         name, input.bits);
  }
  if (input.kind != Kind::kNone &&
      input.range == ActivationQuant::Range::kGroup && input.group_size == 0) {
    fail(ErrorCode::kInvalidArgument, "{}: input: groups of 0 values", name);
  }
  if (input.kind == Kind::kNone ||
      input.range != ActivationQuant::Range::kStatic) {
    return resolved;
  }
  if (stats == nullptr || stats->abs_max.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "{}: input: a static range needs calibration data", name);
  }
  const bool two_sided = !input.symmetric && !stats->min.empty();
  const Range range{two_sided ? smallest(stats->min) : -largest(stats->abs_max),
                    two_sided ? largest(stats->max) : largest(stats->abs_max)};
  ActivationGrid grid = fit_activation_grid(input, range.lo, range.hi);
  if (range.lo == 0 && range.hi == 0) grid = {};
  resolved.static_scale = grid.scale;
  resolved.static_zero = static_cast<std::int32_t>(grid.zero);
  return resolved;
}

void round_activations_in_place(MatrixView<float> X,
                                const ActivationQuant& input) {
  if (input.kind == ActivationQuant::Kind::kNone) return;
  const std::vector<bool> outlier = outlier_columns(X, input.outlier_threshold);
  const auto fit = [&](std::span<const float> x, std::size_t begin = 0) {
    const Range range = range_of(x, outlier, begin);
    return fit_activation_grid(input, range.lo, range.hi);
  };
  ActivationGrid grid =
      static_activation_grid(input, input.static_scale, input.static_zero);
  if (input.range == ActivationQuant::Range::kTensor) grid = fit(X.data());
  const bool in_groups = input.range == ActivationQuant::Range::kGroup;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const std::span<float> x = X.row(t);
    if (input.range == ActivationQuant::Range::kToken) grid = fit(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (in_groups && i % input.group_size == 0) {
        grid = fit(x.subspan(i, std::min(input.group_size, x.size() - i)), i);
      }
      if (!outlier[i]) x[i] = grid.round(x[i]);
    }
  }
}

StatsNeeds activation_needs(const ActivationQuant& input) {
  return {.channel_moments = input.kind != ActivationQuant::Kind::kNone &&
                             input.range == ActivationQuant::Range::kStatic};
}

}  // namespace llmpress

#include "compress/kernels/activation_rounding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "compress/kernels/linear_kernel.h"

namespace llmpress {
namespace {

struct Interval {
  float min = 0, max = 0;  // always contains 0
  float abs_max() const { return std::max(-min, max); }
};

struct Grid {
  float scale = 1, inverse = 1;
  std::int32_t zero = 0;
};

// Below this the inverse overflows; a row that small is a row of zeros.
constexpr float kSmallestScale = std::numeric_limits<float>::min();

Grid make_grid(float scale, std::int32_t zero) {
  const float s = std::max(scale, kSmallestScale);
  return {s, 1.0f / s, zero};
}

float int_max(int bits) { return static_cast<float>((1 << (bits - 1)) - 1); }

Grid fit_grid(const ActivationQuant& quant, const Interval& range) {
  switch (quant.kind) {
    case ActivationQuant::Kind::kNone:
      break;
    case ActivationQuant::Kind::kFp8:
      return make_grid(range.abs_max() / kE4M3Max, 0);
    case ActivationQuant::Kind::kInt: {
      const float qmax = int_max(quant.bits);
      if (quant.symmetric) return make_grid(range.abs_max() / qmax, 0);
      Grid grid =
          make_grid(range.max / (2 * qmax + 1) - range.min / (2 * qmax + 1), 0);
      grid.zero = static_cast<std::int32_t>(
          -qmax - 1 - std::nearbyint(range.min * grid.inverse));
      return grid;
    }
  }
  return {};
}

Interval interval_of(std::span<const float> x, const std::vector<bool>& exact) {
  Interval r;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!exact.empty() && exact[i]) continue;
    r.min = std::min(r.min, x[i]);
    r.max = std::max(r.max, x[i]);
  }
  return r;
}

void require_finite(ConstMatrixView X) {
  for (std::size_t t = 0; t < X.rows(); ++t) {
    float sum = 0;  // 0 * x is NaN just for NaN and infinities
    for (const float x : X.row(t)) sum += 0.0f * x;
    if (sum != 0.0f) {
      throw Error(ErrorCode::kNumeric,
                  "activation rounding: token " + std::to_string(t) +
                      ": a value is not finite, which no grid can hold");
    }
  }
}

// Which columns stay in floating point; empty if none.
std::vector<bool> find_exact_columns(const ActivationQuant& quant,
                                     ConstMatrixView X,
                                     std::span<const std::uint32_t> given) {
  std::vector<bool> exact;
  if (!given.empty() || quant.outlier_threshold > 0) exact.resize(X.cols());
  for (const std::uint32_t c : given) exact[c] = true;
  if (quant.outlier_threshold > 0) {
    for (std::size_t t = 0; t < X.rows(); ++t) {
      const auto x = X.row(t);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::abs(x[i]) >= quant.outlier_threshold) exact[i] = true;
      }
    }
  }
  return exact;
}

// One grid a token.
std::vector<Grid> find_grids(const ActivationQuant& quant, ConstMatrixView X,
                             const std::vector<bool>& exact) {
  std::vector<Grid> grids(X.rows());
  switch (quant.range) {
    case ActivationQuant::Range::kStatic:
      std::fill(grids.begin(), grids.end(),
                make_grid(quant.static_scale,
                          quant.symmetric ? 0 : quant.static_zero));
      break;
    case ActivationQuant::Range::kToken:
      for (std::size_t t = 0; t < X.rows(); ++t) {
        grids[t] = fit_grid(quant, interval_of(X.row(t), exact));
      }
      break;
    case ActivationQuant::Range::kTensor: {
      Interval all;
      for (std::size_t t = 0; t < X.rows(); ++t) {
        const Interval r = interval_of(X.row(t), exact);
        all = {std::min(all.min, r.min), std::max(all.max, r.max)};
      }
      std::fill(grids.begin(), grids.end(), fit_grid(quant, all));
      break;
    }
  }
  return grids;
}

std::int32_t int_code(float x, const Grid& grid, float qmax) {
  const float q =
      std::nearbyint(x * grid.inverse) + static_cast<float>(grid.zero);
  return static_cast<std::int32_t>(std::clamp(q, -qmax - 1, qmax));
}

float round_value(const ActivationQuant& quant, float x, const Grid& grid) {
  if (quant.kind == ActivationQuant::Kind::kFp8) {
    return e4m3_to_float(e4m3_from_float(x * grid.inverse)) * grid.scale;
  }
  const std::int32_t q = int_code(x, grid, int_max(quant.bits));
  return grid.scale * static_cast<float>(q - grid.zero);
}

}  // namespace

IntActivations round_activations(const ActivationQuant& quant,
                                 ConstMatrixView X,
                                 std::span<const std::uint32_t> exact_columns) {
  require_finite(X);
  const std::vector<bool> exact = find_exact_columns(quant, X, exact_columns);
  const std::vector<Grid> grids = find_grids(quant, X, exact);
  const float qmax = int_max(quant.bits);
  IntActivations a{.tokens = X.rows(), .in = X.cols()};
  a.codes.resize(X.size());
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const auto x = X.row(t);
    std::int8_t* const codes = a.codes.data() + t * a.in;
    for (std::size_t i = 0; i < a.in; ++i) {
      const bool keep = !exact.empty() && exact[i];
      codes[i] = static_cast<std::int8_t>(
          keep ? grids[t].zero : int_code(x[i], grids[t], qmax));
    }
    a.scales.push_back(grids[t].scale);
    a.zeros.push_back(grids[t].zero);
  }
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (exact[i]) a.exact_columns.push_back(static_cast<std::uint32_t>(i));
  }
  return a;
}

void quantize_activations_in_place(
    const ActivationQuant& quant, MatrixView<float> X,
    std::span<const std::uint32_t> exact_columns) {
  if (quant.kind == ActivationQuant::Kind::kNone) return;
  require_finite(X);
  const std::vector<bool> exact = find_exact_columns(quant, X, exact_columns);
  const std::vector<Grid> grids = find_grids(quant, X, exact);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const auto x = X.row(t);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (exact.empty() || !exact[i]) x[i] = round_value(quant, x[i], grids[t]);
    }
  }
}

}  // namespace llmpress

#include "compress/kernels/activation_rounding.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "compress/core/activation_grid.h"
#include "compress/core/formatted.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/kernels/row_kernels.h"

namespace llmpress {
namespace {

struct Interval {
  float min = 0, max = 0;  // always contains 0
};

// Column by column: 1 takes part in the grid, 0 stays in floating point. Empty:
// all take part.
using Mask = std::vector<float>;

// Values side by side, so that the compiler need not keep an order.
constexpr std::size_t kLanes = 16;

// Calls body(lane, i) for every i, lane = i % kLanes.
template <class Body>
void for_lanes(std::size_t n, Body body) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) body(j, i + j);
  }
  for (; i < n; ++i) body(i % kLanes, i);
}

// `mask`: of the first of x, or nullptr where all take part.
Interval interval_of(std::span<const float> x, const float* mask) {
  float min[kLanes] = {}, max[kLanes] = {};
  const auto take = [&](std::size_t lane, float v) {
    min[lane] = v < min[lane] ? v : min[lane];
    max[lane] = v > max[lane] ? v : max[lane];
  };
  if (mask == nullptr) {
    for_lanes(x.size(), [&](std::size_t j, std::size_t i) { take(j, x[i]); });
  } else {
    for_lanes(x.size(),
              [&](std::size_t j, std::size_t i) { take(j, x[i] * mask[i]); });
  }
  return {*std::min_element(min, min + kLanes),
          *std::max_element(max, max + kLanes)};
}

void require_finite(std::span<const float> x, std::size_t token) {
  // 0 * v is NaN just for NaN and infinities.
  float lane[kLanes] = {};
  for_lanes(x.size(),
            [&](std::size_t j, std::size_t i) { lane[j] += 0.0f * x[i]; });
  float sum = 0;
  for (const float v : lane) sum += v;
  if (sum == 0.0f) return;
  fail(ErrorCode::kNumeric,
       "activation rounding: token {}: a value is not finite, which no grid "
       "can hold",
       token);
}

Mask find_mask(const ActivationQuant& quant, ConstMatrixView X,
               std::span<const std::uint32_t> exact_columns) {
  Mask mask;
  if (exact_columns.empty() && !(quant.outlier_threshold > 0)) return mask;
  mask.assign(X.cols(), 1.0f);
  for (const std::uint32_t c : exact_columns) mask[c] = 0.0f;
  if (!(quant.outlier_threshold > 0)) return mask;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const auto x = X.row(t);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool outlier = std::abs(x[i]) >= quant.outlier_threshold;
      mask[i] = outlier ? 0.0f : mask[i];
    }
  }
  return mask;
}

// What the whole call has in common.
struct Rounding {
  ActivationQuant quant;
  Mask mask;
  ActivationGrid common;  // unless each token or group has its own

  Rounding(const ActivationQuant& q, ConstMatrixView X,
           std::span<const std::uint32_t> exact_columns, ThreadPool& pool)
      : quant(q) {
    pool.for_each(X.rows(),
                  [&](std::size_t t) { require_finite(X.row(t), t); });
    mask = find_mask(q, X, exact_columns);
    switch (q.range) {
      case ActivationQuant::Range::kToken:
      case ActivationQuant::Range::kGroup:
        break;
      case ActivationQuant::Range::kStatic:
        common = static_activation_grid(q, q.static_scale,
                                        q.symmetric ? 0 : q.static_zero);
        break;
      case ActivationQuant::Range::kTensor: {
        Interval all;
        for (std::size_t t = 0; t < X.rows(); ++t) {
          const Interval r =
              interval_of(X.row(t), mask.empty() ? nullptr : mask.data());
          all = {std::min(all.min, r.min), std::max(all.max, r.max)};
        }
        common = fit_activation_grid(q, all.min, all.max);
        break;
      }
    }
  }

  // Of the columns [begin, begin + x.size()) of a token.
  ActivationGrid grid_of(std::span<const float> x, std::size_t begin) const {
    if (quant.range == ActivationQuant::Range::kStatic ||
        quant.range == ActivationQuant::Range::kTensor) {
      return common;
    }
    const Interval range =
        interval_of(x, mask.empty() ? nullptr : mask.data() + begin);
    return fit_activation_grid(quant, range.min, range.max);
  }

  // Values of a token that share a grid, of `in`.
  std::size_t group_of(std::size_t in) const {
    return quant.range == ActivationQuant::Range::kGroup
               ? std::min(quant.group_size, in)
               : in;
  }

  void round(std::span<float> x, std::size_t begin) const {
    const ActivationGrid grid = grid_of(x, begin);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool keep = !mask.empty() && mask[begin + i] == 0.0f;
      x[i] = keep ? x[i] : grid.round(x[i]);
    }
  }
};

}  // namespace

IntActivations round_activations(const ActivationQuant& quant,
                                 ConstMatrixView X,
                                 std::span<const std::uint32_t> exact_columns,
                                 ThreadPool& pool, Isa isa) {
  assert(quant.range != ActivationQuant::Range::kGroup);
  const Rounding rounding(quant, X, exact_columns, pool);
  const Mask& mask = rounding.mask;
  const RowKernels* const kernels = row_kernels(isa);
  IntActivations a{.tokens = X.rows(), .in = X.cols()};
  a.codes.resize(X.size());
  a.scales.resize(X.rows());
  a.zeros.resize(X.rows());
  pool.for_each(X.rows(), [&](std::size_t t) {
    const auto x = X.row(t);
    const ActivationGrid grid = rounding.grid_of(x, 0);
    std::int8_t* const codes = a.codes.data() + t * a.in;
    if (kernels != nullptr) {
      kernels->round_codes(x.data(), mask.empty() ? nullptr : mask.data(),
                           x.size(), grid, codes);
    } else {
      for (std::size_t i = 0; i < x.size(); ++i) {
        const float v = mask.empty() ? x[i] : x[i] * mask[i];
        codes[i] = static_cast<std::int8_t>(grid.code(v));
      }
    }
    a.scales[t] = grid.scale;
    a.zeros[t] = static_cast<std::int32_t>(grid.zero);
  });
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0.0f) {
      a.exact_columns.push_back(static_cast<std::uint32_t>(i));
    }
  }
  return a;
}

void round_activations_in_place(const ActivationQuant& quant,
                                MatrixView<float> X,
                                std::span<const std::uint32_t> exact_columns,
                                ThreadPool& pool) {
  if (quant.kind == ActivationQuant::Kind::kNone) return;
  const Rounding rounding(quant, X, exact_columns, pool);
  const std::size_t group = rounding.group_of(X.cols());
  pool.for_each(X.rows(), [&](std::size_t t) {
    const auto x = X.row(t);
    for (std::size_t i = 0; i < x.size(); i += group) {
      rounding.round(x.subspan(i, std::min(group, x.size() - i)), i);
    }
  });
}

void quantize_activations_in_place(
    const ActivationQuant& quant, MatrixView<float> X,
    std::span<const std::uint32_t> exact_columns) {
  ThreadPool alone(1);
  round_activations_in_place(quant, X, exact_columns, alone);
}

}  // namespace llmpress

#include "compress/model/kv_rounding.h"

#include <algorithm>
#include <cmath>

#include "compress/core/activation_grid.h"
#include "compress/core/formatted.h"

namespace llmpress {
namespace {

// Columns of one head, or of all.
struct Columns {
  std::size_t begin = 0, count = 0;
};

float abs_max(MatrixView<float> X, Columns columns) {
  float largest = 0;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (const float x : X.row(t).subspan(columns.begin, columns.count)) {
      largest = std::max(largest, std::abs(x));
    }
  }
  return largest;
}

void round_columns(const ActivationQuant& rounding, float static_scale,
                   Columns columns, MatrixView<float> X) {
  const float largest = static_scale > 0 ? 0 : abs_max(X, columns);
  const ActivationGrid grid =
      static_scale > 0 ? static_activation_grid(rounding, static_scale, 0)
                       : fit_activation_grid(rounding, -largest, largest);
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (float& x : X.row(t).subspan(columns.begin, columns.count)) {
      x = grid.round(x);
    }
  }
}

void round_side(const ActivationQuant& rounding, std::span<const float> scales,
                std::size_t heads, MatrixView<float> X) {
  const std::size_t head_dim = X.cols() / heads;
  if (scales.size() > 1 && scales.size() != heads) {
    fail(ErrorCode::kInvalidInput,
         "kv_cache_scheme: {} scales for {} key and value heads", scales.size(),
         heads);
  }
  const bool together =
      rounding.range == ActivationQuant::Range::kTensor || scales.size() == 1;
  if (together) {
    const float scale = scales.empty() ? 0 : scales[0];
    return round_columns(rounding, scale, {0, X.cols()}, X);
  }
  for (std::size_t h = 0; h < heads; ++h) {
    round_columns(rounding, scales.empty() ? 0 : scales[h],
                  {h * head_dim, head_dim}, X);
  }
}

}  // namespace

void widen(KvRange& range, MatrixView<float> K, MatrixView<float> V) {
  range.keys = std::max(range.keys, abs_max(K, {0, K.cols()}));
  range.values = std::max(range.values, abs_max(V, {0, V.cols()}));
}

void apply_kv_scheme_in_place(const KvScheme& scheme, std::size_t kv_heads,
                              MatrixView<float> K, MatrixView<float> V) {
  round_side(scheme.rounding, scheme.key_scales, kv_heads, K);
  round_side(scheme.rounding, scheme.value_scales, kv_heads, V);
}

}  // namespace llmpress

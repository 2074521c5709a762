#include "quantizers/fp8.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "compress/core/checked.h"
#include "compress/core/float_formats.h"
#include "quantizers/int_grid.h"

namespace llmpress {
namespace {

struct Format {
  float largest;
  std::uint8_t (*encode)(float);
  float (*decode)(std::uint8_t);
};

// Values beyond 57344 would become infinity in the hardware's E5M2 cast.
std::uint8_t e5m2_clamped(float x) {
  return e5m2_from_float(std::clamp(x, -kE5M2Max, kE5M2Max));
}

Format format_of(WeightType type) {
  if (type == WeightType::kFp8E4M3) {
    return {kE4M3Max, e4m3_from_float, e4m3_to_float};
  }
  return {kE5M2Max, e5m2_clamped, e5m2_to_float};
}

struct Block {
  std::size_t row, rows, col, cols;
};

template <class Body>
void for_block(const Block& b, const Body& body) {
  for (std::size_t r = b.row; r < b.row + b.rows; ++r) {
    for (std::size_t c = b.col; c < b.col + b.cols; ++c) body(r, c);
  }
}

float fit_scale(ConstMatrixView W, const Block& b, const Format& format,
                const WeightScheme& scheme) {
  float largest = 0;
  for_block(b, [&](std::size_t r, std::size_t c) {
    largest = std::max(largest, std::abs(W(r, c)));
  });
  if (largest == 0) return 1;
  float best = stored_scale(largest / format.largest, scheme.scale_dtype);
  if (scheme.range == RangeSearch::kMinMax) return best;
  double best_error = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 20; ++i) {
    const float p = 1.0f - static_cast<float>(i) / 40.0f;
    const float s =
        stored_scale(p * largest / format.largest, scheme.scale_dtype);
    double error = 0;
    for_block(b, [&](std::size_t r, std::size_t c) {
      const float d = s * format.decode(format.encode(W(r, c) / s)) - W(r, c);
      error +=
          std::pow(static_cast<double>(std::abs(d / largest)), scheme.mse_norm);
    });
    if (error < best_error) {
      best_error = error;
      best = s;
    }
  }
  return best;
}

}  // namespace

Fp8Weight quantize_fp8(ConstMatrixView W, const WeightScheme& scheme,
                       ThreadPool& pool) {
  assert(scheme.type == WeightType::kFp8E4M3 ||
         scheme.type == WeightType::kFp8E5M2);
  const bool e4m3 = scheme.type == WeightType::kFp8E4M3;
  const bool blocks = scheme.block_rows > 0 && scheme.block_cols > 0;
  Fp8Weight q{.out = W.rows(),
              .in = W.cols(),
              .format = e4m3 ? DType::kF8E4M3 : DType::kF8E5M2,
              .scale_dtype = scheme.scale_dtype};
  const std::size_t rows_if_grouped = scheme.group_size == 0 ? q.out : 1;
  q.block_rows = std::min(q.out, blocks ? scheme.block_rows : rows_if_grouped);
  q.block_cols = blocks ? std::min(q.in, scheme.block_cols)
                        : resolved_group_size(scheme, q.in);
  const std::size_t block_columns = ceil_div(q.in, q.block_cols);
  q.codes.resize(q.out * q.in);
  q.scales.resize(ceil_div(q.out, q.block_rows) * block_columns);
  const Format format = format_of(scheme.type);
  pool.for_each(ceil_div(q.out, q.block_rows), [&](std::size_t block_row) {
    const std::size_t row = block_row * q.block_rows;
    for (std::size_t g = 0; g < block_columns; ++g) {
      const std::size_t col = g * q.block_cols;
      const Block block{row, std::min(q.block_rows, q.out - row), col,
                        std::min(q.block_cols, q.in - col)};
      const float scale = fit_scale(W, block, format, scheme);
      q.scales[block_row * block_columns + g] = scale;
      for_block(block, [&](std::size_t r, std::size_t c) {
        q.codes[r * q.in + c] = format.encode(W(r, c) / scale);
      });
    }
  });
  return q;
}

}  // namespace llmpress

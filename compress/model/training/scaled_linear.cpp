#include "compress/model/training/scaled_linear.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/linalg.h"
#include "compress/kernels/activation_rounding.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 16;

std::span<const std::uint32_t> exact_columns(const PackedWeight& weight) {
  const auto* const int8 = std::get_if<Int8Weight>(&weight);
  return int8 == nullptr ? std::span<const std::uint32_t>()
                         : std::span(int8->outlier_columns);
}

}  // namespace

ConstMatrixView rounded_rows(const ActivationQuant& quant, ConstMatrixView X,
                             std::span<const std::uint32_t> exact_columns,
                             MatrixF& room, ThreadPool& pool) {
  if (quant.kind == ActivationQuant::Kind::kNone) return X;
  room = MatrixF(X);
  round_activations_in_place(quant, room.view(), exact_columns, pool);
  return std::as_const(room).view();
}

float mean_magnitude(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(std::abs(v));
  return sum > 0 ? static_cast<float>(sum / static_cast<double>(values.size()))
                 : 1.0f;
}

ScaledLinear::ScaledLinear(LinearWeights weights, const ScaledParts& learns)
    : weights_(std::move(weights)),
      groups_(scale_layout(weights_.weight)),
      W_(dequantize(weights_.weight)),
      scales_(learnable_scales(weights_.weight)),
      zeros_(learnable_zeros(weights_.weight)),
      scale_rate_(mean_magnitude(scales_)) {
  if (weights_.input_hadamard != 0) {
    fail(ErrorCode::kUnsupported,
         "a Linear whose input is rotated at run time cannot run in reverse");
  }
  if (learns.scales) d_scales_.resize(scales_.size());
  if (learns.zeros) d_zeros_.resize(zeros_.size());
  if (learns.bias) d_bias_.resize(weights_.bias.size());
}

ConstMatrixView ScaledLinear::input_of(ConstMatrixView X, MatrixF& room,
                                       ThreadPool& pool) const {
  return rounded_rows(weights_.input, X, exact_columns(weights_.weight), room,
                      pool);
}

void ScaledLinear::run(ConstMatrixView X, MatrixView<float> Y,
                       ThreadPool& pool) const {
  MatrixF room;
  matmul_transposed(input_of(X, room, pool), W_.view(), Y, pool);
  add_to_rows(weights_.bias, Y, pool);
}

void ScaledLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                MatrixView<float> dX, ThreadPool& pool) {
  if (!d_bias_.empty()) add_column_sums(dY, d_bias_, pool);
  if (!d_scales_.empty() || !d_zeros_.empty()) {
    MatrixF room, D(out(), in());
    add_cross_gram(dY, input_of(X, room, pool), 1, D.view(), pool);
    add_gradients(std::as_const(D).view(), pool);
  }
  if (dX.size() == 0) return;
  matmul(dY, W_.view(), dX, pool, 1, Accumulate::kAdd);
}

void ScaledLinear::add_row(std::size_t o, std::span<const float> D,
                           std::span<double> scales,
                           std::span<double> zeros) const {
  const auto w = W_.row(o);
  for (std::size_t i = 0; i < w.size(); ++i) {
    const std::uint32_t g = groups_.column_group[i];
    if (g == ScaleLayout::kNone) continue;
    scales[g] += static_cast<double>(D[i]) * static_cast<double>(w[i]);
    if (!zeros.empty()) zeros[g] += static_cast<double>(D[i]);
  }
}

// By rows of scales, whose sums no two threads share. C = W / s, so what a
// group's weights give is divided by its scale, once.
void ScaledLinear::add_gradients(ConstMatrixView D, ThreadPool& pool) {
  const std::vector<float> stored = learnable_scales(weights_.weight);
  const std::size_t columns = groups_.columns;
  pool.for_ranges(
      groups_.rows, kRowsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          std::vector<double> scales(columns),
              zeros(zeros_.empty() ? 0 : columns);
          const std::size_t last = std::min(out(), (r + 1) * groups_.rows_each);
          for (std::size_t o = r * groups_.rows_each; o < last; ++o) {
            add_row(o, D.row(o), scales, zeros);
          }
          for (std::size_t g = 0; g < columns; ++g) {
            const std::size_t at = r * columns + g;
            const auto s = static_cast<double>(stored[at]);
            if (!d_scales_.empty() && s != 0) {
              d_scales_[at] += static_cast<float>(scales[g] / s);
            }
            if (!d_zeros_.empty()) {
              d_zeros_[at] -= static_cast<float>(zeros[g] * s);
            }
          }
        }
      });
}

void ScaledLinear::list_parameters(const std::string& name,
                                   std::vector<Parameter>& to) {
  const std::vector<std::size_t> shape{groups_.rows, groups_.columns};
  if (!d_scales_.empty()) {
    to.push_back({.name = name + ".weight_scale",
                  .shape = shape,
                  .value = scales_,
                  .gradient = d_scales_,
                  .rate = scale_rate_,
                  .decays = false});
  }
  if (!d_zeros_.empty()) {
    to.push_back({.name = name + ".weight_zero_point",
                  .shape = shape,
                  .value = zeros_,
                  .gradient = d_zeros_,
                  .decays = false});
  }
  if (!d_bias_.empty()) list_bias(name, weights_.bias, d_bias_, to);
}

void ScaledLinear::values_changed(ThreadPool& pool) {
  if (!d_scales_.empty()) set_scales(weights_.weight, scales_);
  if (!d_zeros_.empty()) set_zeros(weights_.weight, zeros_);
  pool.for_ranges(out(), kRowsPerTask, [&](std::size_t begin, std::size_t end) {
    dequantize_rows(weights_.weight, begin,
                    W_.view().rows_slice(begin, end - begin));
  });
}

std::size_t ScaledLinear::bytes() const {
  return stored_bytes(weights_.weight) +
         sizeof(float) * (W_.size() + 2 * scales_.size() + 2 * zeros_.size() +
                          2 * weights_.bias.size());
}

}  // namespace llmpress

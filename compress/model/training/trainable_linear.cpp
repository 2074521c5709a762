#include "compress/model/training/trainable_linear.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "compress/core/formatted.h"
#include "compress/core/strided_product.h"
#include "compress/kernels/dense_product.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTile = 256, kTokensPerTask = 64;
constexpr std::size_t kColumnsPerTask = 64;

}  // namespace

void list_bias(const std::string& name, std::vector<float>& bias,
               std::vector<float>& d_bias, std::vector<Parameter>& to) {
  if (bias.empty()) return;
  to.push_back({.name = name + ".bias",
                .shape = {bias.size()},
                .value = bias,
                .gradient = d_bias});
}

void add_to_rows(std::span<const float> bias, MatrixView<float> Y,
                 ThreadPool& pool) {
  if (bias.empty()) return;
  pool.for_ranges(Y.rows(), kTokensPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t t = begin; t < end; ++t) {
                      const auto y = Y.row(t);
                      for (std::size_t o = 0; o < y.size(); ++o) {
                        y[o] += bias[o];
                      }
                    }
                  });
}

void add_column_sums(ConstMatrixView dY, std::span<float> sums,
                     ThreadPool& pool) {
  assert(sums.size() == dY.cols());
  pool.for_ranges(dY.cols(), kColumnsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    std::vector<double> total(end - begin);
                    for (std::size_t r = 0; r < dY.rows(); ++r) {
                      const float* const row = dY.row(r).data() + begin;
                      for (std::size_t c = 0; c < total.size(); ++c) {
                        total[c] += static_cast<double>(row[c]);
                      }
                    }
                    for (std::size_t c = begin; c < end; ++c) {
                      sums[c] += static_cast<float>(total[c - begin]);
                    }
                  });
}

LearningLinear::LearningLinear(MatrixF weight, std::vector<float> bias, Isa isa)
    : weight_(std::move(weight)),
      d_weight_(weight_.rows(), weight_.cols()),
      bias_(std::move(bias)),
      d_bias_(bias_.size()),
      isa_(isa) {}

void LearningLinear::run(ConstMatrixView X, MatrixView<float> Y,
                         ThreadPool& pool) const {
  dense_product_transposed(X, weight_.view(), Y, Accumulate::kOverwrite, pool,
                           isa_);
  add_to_rows(bias_, Y, pool);
}

void LearningLinear::add_own_gradients(ConstMatrixView X, ConstMatrixView dY,
                                       ThreadPool& pool) {
  add_dense_cross_product(dY, X, d_weight_.view(), pool, isa_);
  if (!d_bias_.empty()) add_column_sums(dY, d_bias_, pool);
}

void LearningLinear::run_backward_over(ConstMatrixView X, ConstMatrixView dY,
                                       MatrixView<float> dX, ThreadPool& pool) {
  add_own_gradients(X, dY, pool);
  if (dX.size() == 0) return;
  dense_product(dY, weight_.view(), dX, Accumulate::kOverwrite, pool, isa_);
}

void LearningLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                  MatrixView<float> dX, ThreadPool& pool) {
  add_own_gradients(X, dY, pool);
  if (dX.size() == 0) return;
  dense_product(dY, weight_.view(), dX, Accumulate::kAdd, pool, isa_);
}

void LearningLinear::list_parameters(const std::string& name,
                                     std::vector<Parameter>& to) {
  to.push_back({.name = name + ".weight",
                .shape = {weight_.rows(), weight_.cols()},
                .value = weight_.data(),
                .gradient = d_weight_.data()});
  list_bias(name, bias_, d_bias_, to);
}

std::size_t LearningLinear::bytes() const {
  return 2 * (weight_.size() + bias_.size()) * sizeof(float);
}

FrozenLinear::FrozenLinear(LinearWeights weights, Isa isa, BiasRole bias)
    : bias_(bias == BiasRole::kLearns ? std::exchange(weights.bias, {})
                                      : std::vector<float>()),
      d_bias_(bias_.size()),
      weights_(std::move(weights)),
      kernel_(make_linear_kernel(weights_, isa)) {
  if (weights_.input_hadamard == 0) return;
  fail(ErrorCode::kUnsupported,
       "a Linear whose input is rotated at run time cannot run in reverse");
}

void FrozenLinear::run(ConstMatrixView X, MatrixView<float> Y,
                       ThreadPool& pool) const {
  kernel_->run(X, Y, pool);
  add_to_rows(bias_, Y, pool);
}

void FrozenLinear::list_parameters(const std::string& name,
                                   std::vector<Parameter>& to) {
  list_bias(name, bias_, d_bias_, to);
}

void FrozenLinear::run_backward(ConstMatrixView /*X*/, ConstMatrixView dY,
                                MatrixView<float> dX, ThreadPool& pool) {
  if (!d_bias_.empty()) add_column_sums(dY, d_bias_, pool);
  if (dX.size() == 0) return;
  for (std::size_t o = 0; o < out(); o += kRowsPerTile) {
    MatrixF tile(std::min(kRowsPerTile, out() - o), in());
    pool.for_ranges(tile.rows(), kRowsPerTile / 16,
                    [&](std::size_t begin, std::size_t end) {
                      dequantize_rows(
                          weights_.weight, o + begin,
                          tile.view().rows_slice(begin, end - begin));
                    });
    const StridedIn columns = columns_of(dY, o, tile.rows());
    const StridedIn W = columns_of(std::as_const(tile).view(), 0, in());
    const StridedOut sum = columns_of(dX, 0, in());
    pool.for_ranges(
        dY.rows(), kTokensPerTask, [&](std::size_t begin, std::size_t end) {
          multiply(columns.rows_slice(begin, end - begin), W,
                   sum.rows_slice(begin, end - begin), 1, Accumulate::kAdd);
        });
  }
}

std::size_t FrozenLinear::bytes() const {
  return kernel_->bytes() + stored_bytes(weights_.weight) +
         2 * bias_.size() * sizeof(float);
}

}  // namespace llmpress

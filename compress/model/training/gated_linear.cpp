#include "compress/model/training/gated_linear.h"

#include <cassert>
#include <utility>

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 16;

void multiply_in_place(const GateSide& side, MatrixView<float> X,
                       ThreadPool& pool) {
  pool.for_ranges(X.rows(), kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) {
                      const auto row = X.row(r);
                      for (std::size_t c = 0; c < row.size(); ++c) {
                        row[c] *= side.gates->value[side.index[c]];
                      }
                    }
                  });
}

// d of each gate += the sum over all rows and its columns of x o dx.
void add_gate_gradients(const GateSide& side, ConstMatrixView X,
                        ConstMatrixView dX, ThreadPool& pool) {
  MatrixF product(X);
  pool.for_ranges(product.size(), std::size_t{1} << 14,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t i = begin; i < end; ++i) {
                      product.data()[i] *= dX.data()[i];
                    }
                  });
  std::vector<float> sums(X.cols());
  add_column_sums(std::as_const(product).view(), sums, pool);
  for (std::size_t c = 0; c < sums.size(); ++c) {
    side.gates->d[side.index[c]] += sums[c];
  }
}

}  // namespace

GatedLinear::GatedLinear(std::unique_ptr<TrainableLinear> inner,
                         GateSide inputs, GateSide outputs)
    : AroundLinear(std::move(inner)),
      in_(std::move(inputs)),
      out_(std::move(outputs)) {
  assert(in_.gates == nullptr || in_.index.size() == inner_->in());
  assert(out_.gates == nullptr || out_.index.size() == inner_->out());
}

void GatedLinear::run(ConstMatrixView X, MatrixView<float> Y,
                      ThreadPool& pool) const {
  if (in_.gates != nullptr) {
    MatrixF gated(X);
    multiply_in_place(in_, gated.view(), pool);
    inner_->run(std::as_const(gated).view(), Y, pool);
  } else {
    inner_->run(X, Y, pool);
  }
  if (out_.gates != nullptr) multiply_in_place(out_, Y, pool);
}

void GatedLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                               MatrixView<float> dX, ThreadPool& pool) {
  MatrixF gated(X), d_inner(dY), d_gated(X.rows(), X.cols());
  if (in_.gates != nullptr) multiply_in_place(in_, gated.view(), pool);
  if (out_.gates != nullptr) {
    MatrixF Y(dY.rows(), dY.cols());
    inner_->run(std::as_const(gated).view(), Y.view(), pool);
    add_gate_gradients(out_, std::as_const(Y).view(), dY, pool);
    multiply_in_place(out_, d_inner.view(), pool);
  }
  if (in_.gates == nullptr) {
    inner_->run_backward(X, std::as_const(d_inner).view(), dX, pool);
    return;
  }
  inner_->run_backward(std::as_const(gated).view(),
                       std::as_const(d_inner).view(), d_gated.view(), pool);
  add_gate_gradients(in_, X, std::as_const(d_gated).view(), pool);
  if (dX.size() == 0) return;
  multiply_in_place(in_, d_gated.view(), pool);
  for (std::size_t i = 0; i < d_gated.size(); ++i) {
    dX.data()[i] += d_gated.data()[i];
  }
}

void DroppedLinear::run(ConstMatrixView X, MatrixView<float> Y,
                        ThreadPool& pool) const {
  inner_->run(X, Y, pool);
  if (dropout_.on()) drop_in_place(dropout_, Y, pool);
}

void DroppedLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                 MatrixView<float> dX, ThreadPool& pool) {
  if (!dropout_.on()) return inner_->run_backward(X, dY, dX, pool);
  MatrixF d(dY);
  drop_in_place(dropout_, d.view(), pool);
  inner_->run_backward(X, std::as_const(d).view(), dX, pool);
}

}  // namespace llmpress

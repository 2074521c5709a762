#include "compress/pipeline/run/rounded_linear.h"

#include <algorithm>
#include <utility>

#include "compress/core/linalg.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

RoundedLinear::RoundedLinear(std::unique_ptr<BlockWeight> weight,
                             std::size_t out, std::size_t in,
                             std::vector<float> bias, ThreadPool& pool)
    : weight_(std::move(weight)),
      W_q_(out, in),
      d_weight_(out, in),
      bias_(std::move(bias)) {
  round(pool);
}

void RoundedLinear::run(ConstMatrixView X, MatrixView<float> Y,
                        ThreadPool& pool) const {
  matmul_transposed(X, W_q_.view(), Y, pool);
  add_to_rows(bias_, Y, pool);
}

void RoundedLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                 MatrixView<float> dX, ThreadPool& pool) {
  add_cross_gram(dY, X, 1, d_weight_.view(), pool);
  if (dX.size() == 0) return;
  matmul(dY, W_q_.view(), dX, pool, 1, Accumulate::kAdd);
}

ConstMatrixView RoundedLinear::step(std::size_t iteration, ThreadPool& pool) {
  weight_->step(d_weight_.view(), iteration, pool);
  return std::as_const(d_weight_).view();
}

void RoundedLinear::round(ThreadPool& pool) {
  weight_->round_into(W_q_.view(), pool);
  std::ranges::fill(d_weight_.data(), 0.0f);
}

std::size_t RoundedLinear::bytes() const {
  return (2 * W_q_.size() + bias_.size()) * sizeof(float);
}

}  // namespace llmpress

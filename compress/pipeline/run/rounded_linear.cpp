#include "compress/pipeline/run/rounded_linear.h"

#include <algorithm>
#include <utility>

#include "compress/core/linalg.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

RoundedLinear::RoundedLinear(ConstMatrixView W, std::vector<float> bias,
                             const WeightScheme& scheme, ThreadPool& pool)
    : rounding_(W, scheme, pool),
      W_q_(W.rows(), W.cols()),
      d_weight_(W.rows(), W.cols()),
      bias_(std::move(bias)) {
  rounding_.round_into(W_q_.view(), pool);
}

void RoundedLinear::start_from(const GroupedIntWeight& weight,
                               ThreadPool& pool) {
  rounding_.start_from(weight, pool);
  rounding_.round_into(W_q_.view(), pool);
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

void RoundedLinear::step(const RoundingRates& rates, ThreadPool& pool) {
  rounding_.step(d_weight_.view(), rates, pool);
  rounding_.round_into(W_q_.view(), pool);
  std::ranges::fill(d_weight_.data(), 0.0f);
}

void RoundedLinear::set_parameters(RoundingParameters parameters,
                                   ThreadPool& pool) {
  rounding_.set_parameters(std::move(parameters));
  rounding_.round_into(W_q_.view(), pool);
}

std::size_t RoundedLinear::bytes() const {
  return (2 * W_q_.size() + bias_.size()) * sizeof(float);
}

}  // namespace llmpress

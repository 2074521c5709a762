// A Linear whose weight learns how it is rounded, as a block runs it forward and
// in reverse.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/ops/op_gradients.h"
#include "quantizers/block_weight.h"

namespace llmpress {

class RoundedLinear final : public LinearKernel, public ReversibleLinear {
 public:
  // `weight` [out, in] is rounded at once; `bias` [out] or empty.
  RoundedLinear(std::unique_ptr<BlockWeight> weight, std::size_t out,
                std::size_t in, std::vector<float> bias, ThreadPool& pool);

  // With W_q.
  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  // dL/dW_q += dY^T X, dX += dY W_q.
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  std::size_t out() const override { return W_q_.rows(); }
  std::size_t in() const override { return W_q_.cols(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/learning-rounding"; }

  // A step from the gradients since the last round(); returns dL/dW.
  ConstMatrixView step(std::size_t iteration, ThreadPool& pool);
  // W_q as it is after the step.
  void round(ThreadPool& pool);
  const BlockWeight& weight() const { return *weight_; }

 private:
  std::unique_ptr<BlockWeight> weight_;
  MatrixF W_q_, d_weight_;
  std::vector<float> bias_;
};

}  // namespace llmpress

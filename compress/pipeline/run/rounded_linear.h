// A Linear whose weight's rounding learns, as a block runs it forward and in
// reverse.
#pragma once

#include <string_view>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/ops/op_gradients.h"
#include "quantizers/signed_rounding.h"

namespace llmpress {

class RoundedLinear final : public LinearKernel, public ReversibleLinear {
 public:
  // W [out, in] must outlive it, `bias` [out] or empty. Throws as
  // SignedRounding.
  RoundedLinear(ConstMatrixView W, std::vector<float> bias,
                const WeightScheme& scheme, ThreadPool& pool);

  void start_from(const GroupedIntWeight& weight, ThreadPool& pool);

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

  // A step from the gradients since the last one.
  void step(const RoundingRates& rates, ThreadPool& pool);
  void set_parameters(RoundingParameters parameters, ThreadPool& pool);
  const SignedRounding& rounding() const { return rounding_; }

 private:
  SignedRounding rounding_;
  MatrixF W_q_, d_weight_;
  std::vector<float> bias_;
};

}  // namespace llmpress

// A packed Linear whose scales learn while its codes stay: the second phase of
// EfficientQAT (arXiv:2407.11062, section 3.3).
//
//   y = W r(x) + b,   W[o, i] = s[o, g(i)] C[o, i],   C = q - z
//   dL/ds[o, g] = sum over i of g: D[o, i] C[o, i],   dL/dz = -s sum D
//
// with D = dY^T X and r the rounding of activations, both of which, and the
// rounding of s and z to the type that they are stored in, gradients pass
// straight through (arXiv:1308.3432). Real zero points learn too, whole ones
// are codes. Steps are relative to the mean scale of the Linear, whatever its
// size. Memory beside the packed weight: W in float32, and D while the Linear
// runs in reverse.
#pragma once

#include <string>
#include <vector>

#include "compress/core/packed/scale_layout.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

// Parts of a packed Linear that learn.
struct ScaledParts {
  bool scales = true;
  bool zeros = true;  // that are real numbers
  bool bias = true;
};

class ScaledLinear final : public TrainableLinear {
 public:
  // Throws Error(kUnsupported) where the scales cannot learn, or the input is
  // rotated at run time.
  ScaledLinear(LinearWeights weights, const ScaledParts& learns);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  // <name>.weight_scale, .weight_zero_point and .bias.
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  void values_changed(ThreadPool& pool) override;
  std::optional<LinearWeights> packed() const override { return weights_; }
  std::size_t out() const override { return W_.rows(); }
  std::size_t in() const override { return W_.cols(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/learning-scales"; }

 private:
  ConstMatrixView input_of(ConstMatrixView X, MatrixF& room,
                           ThreadPool& pool) const;
  void add_gradients(ConstMatrixView D, ThreadPool& pool);
  // Sums of row `o`'s groups are added to `scales` and `zeros`, [columns].
  void add_row(std::size_t o, std::span<const float> D,
               std::span<double> scales, std::span<double> zeros) const;

  LinearWeights weights_;
  ScaleLayout groups_;
  MatrixF W_;  // as it decodes
  // [groups_.size()], before they are rounded as they are stored; the gradients
  // of what does not learn are empty.
  std::vector<float> scales_, d_scales_;
  std::vector<float> zeros_, d_zeros_;
  std::vector<float> d_bias_;
  float scale_rate_ = 1;
};

// X as `quant` rounds it at run time, in `room`; X itself where it does not.
ConstMatrixView rounded_rows(const ActivationQuant& quant, ConstMatrixView X,
                             std::span<const std::uint32_t> exact_columns,
                             MatrixF& room, ThreadPool& pool);
// The mean magnitude, or 1 where that is 0.
float mean_magnitude(std::span<const float> values);

}  // namespace llmpress

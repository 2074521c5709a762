// A Linear, or an embedding, that learns on the grid that it will be stored on,
// as it runs then:
//
//   y = W_q r(x) + b
//
// W_q is W on a grid whose steps learn too (learned_grid.h), or rounded to
// nearest anew after every step; r the rounding of activations at run time.
// Both are passed straight through. Memory: W, W_q and the gradient in float32,
// and the packed form.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/model/training/trainable_linear.h"
#include "quantizers/learned_grid.h"
#include "quantizers/quantize_config.h"

namespace llmpress {

enum class GridSteps { kLearn, kFitted };

struct GridLinearConfig {
  QuantizeConfig quantize{};  // weights and input; the method is not asked
  GridSteps steps = GridSteps::kLearn;
  bool learns_bias = true;
  bool rounds_input = true;
};

class GridLinear final : public TrainableLinear, public LearningTable {
 public:
  // `start`: what learning starts from; null: W rounded to nearest. Throws
  // Error(kUnsupported) as LearnedGrid.
  GridLinear(MatrixF W, std::vector<float> bias, const GridLinearConfig& config,
             const PackedWeight* start, ThreadPool& pool);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  // <name>.weight, .weight_scale, .weight_zero_point and .bias.
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  void values_changed(ThreadPool& pool) override;
  std::optional<LinearWeights> packed() const override;
  std::size_t out() const override { return W_.rows(); }
  std::size_t in() const override { return W_.cols(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/learning-grid"; }
  // Of an embedding.
  ConstMatrixView table() const override { return W_q_.view(); }
  void add_row_gradients(std::span<const std::uint32_t> numbers,
                         ConstMatrixView d, float factor,
                         ThreadPool& pool) override;

 private:
  ConstMatrixView input_of(ConstMatrixView X, MatrixF& room,
                           ThreadPool& pool) const;
  void add_gradients(MatrixF D, ThreadPool& pool);  // D = dL/dW_q

  GridLinearConfig config_;
  MatrixF W_, W_q_, d_W_;
  std::vector<float> bias_, d_bias_;
  std::optional<LearnedGrid> grid_;  // none: fitted
  std::vector<float> d_scales_, d_zeros_;
  float scale_rate_ = 1;
};

}  // namespace llmpress

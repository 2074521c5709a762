// Linears of a model that is trained: those that learn, in float32, and frozen
// ones in whatever form they are stored.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/packed_weight.h"
#include "compress/kernels/linear_kernel.h"
#include "compress/model/ops/op_gradients.h"
#include "compress/model/training/learning_table.h"
#include "compress/model/training/parameter.h"

namespace llmpress {

class TrainableLinear : public LinearKernel, public ReversibleLinear {
 public:
  // Appends what learns; `name` is the Linear's module path.
  virtual void list_parameters(const std::string& name,
                               std::vector<Parameter>& to) = 0;
  // After the values of parameters were changed.
  virtual void values_changed(ThreadPool& /*pool*/) {}
  // What it learned as a packed Linear; none: its weight is dense or stays as
  // it is stored.
  virtual std::optional<LinearWeights> packed() const { return std::nullopt; }
};

// Makes the Linear of this module path that learns in a way of its own; null:
// it is made as usual. Takes what it needs of `weights`.
using LinearMaker = std::function<std::unique_ptr<TrainableLinear>(
    const std::string& linear, LinearWeights& weights)>;

// y = W x + b whose W [out, in] and b learn. Forward and backward read the
// numbers where they lie, so that a step of an optimizer needs no packing.
class LearningLinear final : public TrainableLinear, public LearningTable {
 public:
  LearningLinear(MatrixF weight, std::vector<float> bias, Isa isa);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  // dW += dY^T X, db += sum of dY's rows, dX += dY W.
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  void run_backward_over(ConstMatrixView X, ConstMatrixView dY,
                         MatrixView<float> dX, ThreadPool& pool) override;
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  std::size_t out() const override { return weight_.rows(); }
  std::size_t in() const override { return weight_.cols(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/learning"; }

  ConstMatrixView table() const override { return weight_.view(); }
  void add_row_gradients(std::span<const std::uint32_t> numbers,
                         ConstMatrixView d, float factor,
                         ThreadPool& pool) override {
    add_to_numbered_rows(numbers, d, factor, d_weight_.view(), pool);
  }

 private:
  void add_own_gradients(ConstMatrixView X, ConstMatrixView dY,
                         ThreadPool& pool);

  MatrixF weight_, d_weight_;
  std::vector<float> bias_, d_bias_;
  Isa isa_;
};

// What learns of a Linear whose weight does not.
enum class BiasRole { kFrozen, kLearns };

// A Linear whose weight does not learn. dX += dY W decodes tiles of W's rows, never all
// of it; the rounding of activations is passed straight through
// (arXiv:1308.3432).
class FrozenLinear final : public TrainableLinear {
 public:
  // Throws Error(kUnsupported) for a Linear whose input is rotated online.
  FrozenLinear(LinearWeights weights, Isa isa,
               BiasRole bias = BiasRole::kFrozen);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  std::size_t out() const override { return kernel_->out(); }
  std::size_t in() const override { return kernel_->in(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return kernel_->name(); }
  const PackedWeight& weight() const { return weights_.weight; }

 private:
  std::vector<float> bias_, d_bias_;  // that learns, apart from the kernel
  LinearWeights weights_;
  std::unique_ptr<LinearKernel> kernel_;
};

// Runs a Linear that somebody else holds.
class BorrowedLinear final : public LinearKernel {
 public:
  explicit BorrowedLinear(const LinearKernel& linear) : linear_(linear) {}
  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    linear_.run(X, Y, pool);
  }
  std::size_t out() const override { return linear_.out(); }
  std::size_t in() const override { return linear_.in(); }
  std::size_t bytes() const override { return 0; }
  std::string_view name() const override { return linear_.name(); }

 private:
  const LinearKernel& linear_;
};

// A bias that learns, if it is not empty.
void list_bias(const std::string& name, std::vector<float>& bias,
               std::vector<float>& d_bias, std::vector<Parameter>& to);
// Every row of Y += bias, [cols] or empty.
void add_to_rows(std::span<const float> bias, MatrixView<float> Y,
                 ThreadPool& pool);
// db += sum of dY's rows, in fixed stretches.
void add_column_sums(ConstMatrixView dY, std::span<float> sums,
                     ThreadPool& pool);

}  // namespace llmpress

// A Linear some of whose inputs or outputs are multiplied by gates, and one
// whose outputs are left out at random: what training puts around a Linear.
//   y = g_out o (W (g_in o x) + b)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compress/kernels/dropout.h"
#include "compress/model/training/trainable_linear.h"

namespace llmpress {

// Numbers that several Linears may share, and the gradients that they add up.
struct Gates {
  std::vector<float> value{}, d{};

  explicit Gates(std::size_t count) : value(count, 1.0f), d(count) {}
};

// Which gate multiplies each index of a side of a Linear.
struct GateSide {
  Gates* gates = nullptr;              // null: none; must outlive the Linear
  std::vector<std::uint32_t> index{};  // [in] or [out]
};

// All but the passes is that of the Linear within.
class AroundLinear : public TrainableLinear {
 public:
  explicit AroundLinear(std::unique_ptr<TrainableLinear> inner)
      : inner_(std::move(inner)) {}

  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override {
    inner_->list_parameters(name, to);
  }
  void values_changed(ThreadPool& pool) override {
    inner_->values_changed(pool);
  }
  std::optional<LinearWeights> packed() const override {
    return inner_->packed();
  }
  std::size_t out() const override { return inner_->out(); }
  std::size_t in() const override { return inner_->in(); }
  std::size_t bytes() const override { return inner_->bytes(); }
  std::string_view name() const override { return inner_->name(); }

 protected:
  std::unique_ptr<TrainableLinear> inner_;
};

class GatedLinear final : public AroundLinear {
 public:
  GatedLinear(std::unique_ptr<TrainableLinear> inner, GateSide inputs,
              GateSide outputs);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  // Also d_in += sum over rows of x o dL/d(g_in o x), and likewise d_out.
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;

 private:
  GateSide in_, out_;
};

class DroppedLinear final : public AroundLinear {
 public:
  using AroundLinear::AroundLinear;

  // For the passes from now on.
  void set(const Dropout& dropout) { dropout_ = dropout; }

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;

 private:
  Dropout dropout_{};
};

}  // namespace llmpress

// A frozen Linear beside a difference that learns, each number of it under a
// gate of its own (diff pruning, arXiv:2012.07463):
//   y = W x + b + (z o w) x
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "compress/model/training/gated_linear.h"

namespace llmpress {

class DifferenceLinear final : public AroundLinear {
 public:
  // w begins as 0, every log_alpha as `log_alpha`, which learn at `gate_rate`
  // times the learning rate; every gate is open.
  DifferenceLinear(std::unique_ptr<TrainableLinear> inner, float log_alpha,
                   float gate_rate);

  // What decides the gates, and they: whoever trains sets z and dz/d log_alpha
  // before a pass and calls gates_changed().
  struct Numbers {
    MatrixF w{}, log_alpha{};      // [out, in], that learn
    MatrixF d_w{}, d_log_alpha{};  // their gradients
    MatrixF z{}, slope{};
  };
  Numbers& numbers() { return n_; }
  void gates_changed(ThreadPool& pool);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  // <name>.difference and <name>.log_alpha.
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  void values_changed(ThreadPool& pool) override { gates_changed(pool); }
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/difference"; }

 private:
  float gate_rate_;
  Numbers n_;
  MatrixF delta_;  // z o w
};

}  // namespace llmpress

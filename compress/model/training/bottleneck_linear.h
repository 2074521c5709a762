// A frozen Linear with a bottleneck behind it that learns (bottleneck.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/model/bottleneck.h"
#include "compress/model/training/gated_linear.h"

namespace llmpress {

struct BottleneckConfig {
  std::size_t size = 32;
  Activation activation = Activation::kRelu;
  std::uint64_t seed = 0;  // of D
};

class BottleneckLinear final : public AroundLinear {
 public:
  // D begins as normal numbers of deviation 0.02, all else as 0: nothing is
  // changed yet.
  BottleneckLinear(std::unique_ptr<TrainableLinear> inner,
                   const BottleneckConfig& config, Isa isa);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  // <name>.adapter_down.weight, .adapter_down.bias, .adapter_up.weight and
  // .adapter_up.bias.
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  std::size_t bytes() const override;
  std::string_view name() const override { return "f32/bottleneck"; }

 private:
  Bottleneck own_, d_;
  Isa isa_;
};

}  // namespace llmpress

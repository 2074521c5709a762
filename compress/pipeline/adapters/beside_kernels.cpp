#include "compress/pipeline/adapters/beside_kernels.h"

namespace llmpress {
namespace {

class LoraBeside final : public KernelBeside {
 public:
  LoraBeside(std::unique_ptr<LinearKernel> base, LoraOperator lora)
      : KernelBeside(
            std::move(base), "+lora",
            sizeof(float) * (lora.A.size() + lora.B.size() +
                             lora.base_factors.size() + lora.bias.size())),
        lora_(std::move(lora)) {}
  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    base_->run(X, Y, pool);
    apply_in_place(lora_, X, Y, pool);
  }

 private:
  LoraOperator lora_;
};

class DifferenceBeside final : public KernelBeside {
 public:
  DifferenceBeside(std::unique_ptr<LinearKernel> base,
                   SparseDifference difference, double weight)
      : KernelBeside(std::move(base), "+difference",
                     2 * sizeof(float) * difference.values.size()),
        difference_(std::move(difference)),
        weight_(weight) {}
  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    base_->run(X, Y, pool);
    apply_in_place(difference_, weight_, X, Y, pool);
  }

 private:
  SparseDifference difference_;
  double weight_;
};

class BottleneckBeside final : public KernelBeside {
 public:
  BottleneckBeside(std::unique_ptr<LinearKernel> base, Bottleneck bottleneck,
                   Isa isa)
      : KernelBeside(std::move(base), "+bottleneck",
                     sizeof(float) * bottleneck.numbers()),
        bottleneck_(std::move(bottleneck)),
        isa_(isa) {}
  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override {
    base_->run(X, Y, pool);
    apply_in_place(bottleneck_, Y, isa_, pool);
  }

 private:
  Bottleneck bottleneck_;
  Isa isa_;
};

}  // namespace

std::unique_ptr<LinearKernel> with_lora(std::unique_ptr<LinearKernel> base,
                                        LoraOperator lora) {
  return std::make_unique<LoraBeside>(std::move(base), std::move(lora));
}

std::unique_ptr<LinearKernel> with_difference(
    std::unique_ptr<LinearKernel> base, SparseDifference difference,
    double weight) {
  return std::make_unique<DifferenceBeside>(std::move(base),
                                            std::move(difference), weight);
}

std::unique_ptr<LinearKernel> with_bottleneck(
    std::unique_ptr<LinearKernel> base, Bottleneck bottleneck, Isa isa) {
  return std::make_unique<BottleneckBeside>(std::move(base),
                                            std::move(bottleneck), isa);
}

}  // namespace llmpress

// A frozen Linear with an adapter beside it that learns:
//   y = W x + b + s B (A x),   A [r, in], B [out, r]
// LoRA (arXiv:2106.09685) with s = alpha / r, rsLoRA (arXiv:2312.03732) with
// s = alpha / sqrt(r). DoRA (arXiv:2402.09353, Eq. 5) learns the norm m [out] of
// every row too:
//   y = f o (W x + s B (A x)) + b,   f = m / n,   n = |W + s B A| of each row
// and takes n for a constant in the gradient (section 4.3), as PEFT does. W may
// be packed: then n is of its dequantized rows. There is no dropout.
//
// Cost beside the base's: tokens * r * (in + out) multiply-adds each way; DoRA
// adds out * in * r for the norms each way, and a pass of W in reverse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/model/training/trainable_linear.h"

namespace llmpress {

struct LoraConfig {
  std::size_t rank = 8;
  double scaling = 1;  // s
  bool dora = false;
  std::uint64_t seed = 0;  // of A
};

class LoraLinear final : public TrainableLinear {
 public:
  // A is uniform in +-1/sqrt(in) (PEFT's kaiming_uniform with a = sqrt(5)), B
  // zero, m the norms of W's rows, so that y begins as the base's. Throws
  // Error(kInvalidArgument) for a rank of 0 or above min(in, out), kUnsupported
  // as FrozenLinear.
  LoraLinear(LinearWeights base, const LoraConfig& config, Isa isa);

  void run(ConstMatrixView X, MatrixView<float> Y,
           ThreadPool& pool) const override;
  // dB += s g^T (X A^T), dA += s (g B)^T X, dX += g (W + s B A), and
  // dm += sum of dY o z / n; g = f o dY and z the sum in front of f.
  void run_backward(ConstMatrixView X, ConstMatrixView dY, MatrixView<float> dX,
                    ThreadPool& pool) override;
  // <name>.lora_A.weight, .lora_B.weight and, of DoRA, .lora_magnitude_vector.
  void list_parameters(const std::string& name,
                       std::vector<Parameter>& to) override;
  std::size_t out() const override { return base_.out(); }
  std::size_t in() const override { return base_.in(); }
  std::size_t bytes() const override;
  std::string_view name() const override { return base_.name(); }

 private:
  std::vector<double> row_norms(ThreadPool& pool) const;  // n [out]
  // W x + s H B^T for H = X A^T.
  void run_directions(ConstMatrixView X, ConstMatrixView H, MatrixView<float> Z,
                      ThreadPool& pool) const;
  // f o dY; adds to dm.
  MatrixF scale_gradient(ConstMatrixView X, ConstMatrixView H,
                         ConstMatrixView dY, ThreadPool& pool);

  std::vector<float> bias_;  // of DoRA, which does not scale it
  FrozenLinear base_;        // of DoRA without its bias
  float scaling_;
  MatrixF A_, B_, dA_, dB_;
  std::vector<float> magnitude_, d_magnitude_;
};

}  // namespace llmpress

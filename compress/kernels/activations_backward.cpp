#include "compress/kernels/activations_backward.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "compress/kernels/row_kernels.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 4096, kPiece = 512;

float slope(Activation activation, float x) {
  const auto s = [](float z) { return 1.0f / (1.0f + std::exp(-z)); };
  switch (activation) {
    case Activation::kSilu:
      return s(x) * (1 + x * (1 - s(x)));
    case Activation::kGeluTanh: {
      constexpr float kTwice = 1.5957691216f;  // 2 sqrt(2 / pi)
      const float p = s(kTwice * (x + 0.044715f * x * x * x));
      return p + x * p * (1 - p) * kTwice * (1 + 3 * 0.044715f * x * x);
    }
    case Activation::kGeluErf:
      return 0.5f * (1 + std::erf(x * 0.7071067812f)) +
             x * 0.3989422804f * std::exp(-0.5f * x * x);
    case Activation::kRelu:
      return x > 0 ? 1.0f : 0.0f;
    case Activation::kRelu2:
      return x > 0 ? 2 * x : 0.0f;
    case Activation::kSigmoid:
      return s(x) * (1 - s(x));
    case Activation::kSoftplus:
      return s(x);
    case Activation::kTanh:
      return 1 - std::tanh(x) * std::tanh(x);
  }
  return 1;
}

// target[begin + i] (+)= dy_i factor_i
void put_product(const GradientTarget& target, std::size_t begin,
                 const float* __restrict dy, std::span<const float> factors) {
  float* __restrict const to = target.view.data().data() + begin;
  const float* __restrict const f = factors.data();
  if (target.overwrite) {
    for (std::size_t i = 0; i < factors.size(); ++i) to[i] = dy[i] * f[i];
  } else {
    for (std::size_t i = 0; i < factors.size(); ++i) to[i] += dy[i] * f[i];
  }
}

}  // namespace

void activation_slopes(Activation activation, std::span<const float> x,
                       std::span<float> y, Isa isa) {
  assert(x.size() == y.size());
  if (const RowKernels* const kernels = row_kernels(isa)) {
    return kernels->slopes(activation, x.data(), x.size(), y.data());
  }
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = slope(activation, x[i]);
}

void activation_backward(Activation activation, ConstMatrixView X,
                         ConstMatrixView dY, MatrixView<float> dX,
                         ThreadPool& pool, Isa isa) {
  assert(X.size() == dY.size() && X.size() == dX.size());
  pool.for_ranges(
      X.size(), kElementsPerTask, [&](std::size_t begin, std::size_t end) {
        std::array<float, kElementsPerTask> buffer;
        const std::span<float> slopes(buffer.data(), end - begin);
        activation_slopes(activation, X.data().subspan(begin, end - begin),
                          slopes, isa);
        for (std::size_t i = begin; i < end; ++i) {
          dX.data()[i] += dY.data()[i] * slopes[i - begin];
        }
      });
}

void gated_activation_backward(Activation activation, ConstMatrixView gate,
                               ConstMatrixView up, ConstMatrixView dY,
                               const GradientTarget& d_gate,
                               const GradientTarget& d_up, ThreadPool& pool,
                               Isa isa) {
  const float* const dy = dY.data().data();
  const float* const u = up.data().data();
  const auto run_piece = [&](std::size_t begin, std::size_t end) {
    std::array<float, kPiece> buffer;
    const auto g = gate.data().subspan(begin, end - begin);
    const std::span<float> made(buffer.data(), g.size());
    if (d_gate.view.size() != 0) {
      activation_slopes(activation, g, made, isa);
      for (std::size_t i = begin; i < end; ++i) made[i - begin] *= u[i];
      put_product(d_gate, begin, dy + begin, made);
    }
    if (d_up.view.size() == 0) return;
    std::ranges::copy(g, made.begin());
    activate_row_in_place(activation, made, isa);
    put_product(d_up, begin, dy + begin, made);
  };
  pool.for_ranges(gate.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t at = begin; at < end; at += kPiece) {
                      run_piece(at, std::min(end, at + kPiece));
                    }
                  });
}

}  // namespace llmpress

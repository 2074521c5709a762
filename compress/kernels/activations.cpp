#include "compress/kernels/activations.h"

#include <cassert>
#include <cmath>

#include "compress/kernels/row_kernels.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 4096;

float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGeluTanh: {
      constexpr float kSqrt2OverPi = 0.7978845608f;
      const float inner = kSqrt2OverPi * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + std::tanh(inner));
    }
    case Activation::kGeluErf:
      return 0.5f * x * (1.0f + std::erf(x * 0.7071067812f));
    case Activation::kRelu:
      return x < 0.0f ? 0.0f : x;  // keeps NaN
  }
  return x;
}

}  // namespace

void activate_in_place(Activation activation, MatrixView<float> X,
                       ThreadPool& pool, Isa isa) {
  const auto x = X.data();
  const RowKernels* const kernels = row_kernels(isa);
  pool.for_ranges(x.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    if (kernels != nullptr) {
                      kernels->activate(activation, x.data() + begin, nullptr,
                                        end - begin, x.data() + begin);
                      return;
                    }
                    for (std::size_t i = begin; i < end; ++i) {
                      x[i] = activate(activation, x[i]);
                    }
                  });
}

void gated_activation(Activation activation, ConstMatrixView gate,
                      ConstMatrixView up, MatrixView<float> out,
                      ThreadPool& pool, Isa isa) {
  assert(gate.size() == up.size() && gate.size() == out.size());
  const RowKernels* const kernels = row_kernels(isa);
  const float* const g = gate.data().data();
  const float* const u = up.data().data();
  float* const y = out.data().data();
  pool.for_ranges(gate.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    if (kernels != nullptr) {
                      kernels->activate(activation, g + begin, u + begin,
                                        end - begin, y + begin);
                      return;
                    }
                    for (std::size_t i = begin; i < end; ++i) {
                      y[i] = activate(activation, g[i]) * u[i];
                    }
                  });
}

}  // namespace llmpress

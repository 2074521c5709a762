#include "compress/kernels/activations.h"

#include <cassert>
#include <cmath>

#include "compress/kernels/row_kernels.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = 4096;

float softplus(float x) {
  // For large x the sum rounds to x.
  return x > 20.0f ? x : std::log1p(std::exp(x));
}

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
    case Activation::kRelu2:
      return x < 0.0f ? 0.0f : x * x;
    case Activation::kSigmoid:
      return 1.0f / (1.0f + std::exp(-x));
    case Activation::kSoftplus:
      return softplus(x);
    case Activation::kTanh:
      return std::tanh(x);
  }
  return x;
}

// Of these there is no vector version.
bool is_plain_only(Activation activation) {
  return activation == Activation::kSoftplus;
}

const RowKernels* kernels_for(Activation activation, Isa isa) {
  return is_plain_only(activation) ? nullptr : row_kernels(isa);
}

}  // namespace

void activate_row_in_place(Activation activation, std::span<float> x, Isa isa) {
  if (const RowKernels* const kernels = kernels_for(activation, isa)) {
    return kernels->activate(activation, x.data(), nullptr, x.size(), x.data());
  }
  for (float& value : x) value = activate(activation, value);
}

void activate_in_place(Activation activation, MatrixView<float> X,
                       ThreadPool& pool, Isa isa) {
  pool.for_ranges(X.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    activate_row_in_place(
                        activation, X.data().subspan(begin, end - begin), isa);
                  });
}

void gated_activation(Activation activation, ConstMatrixView gate,
                      ConstMatrixView up, MatrixView<float> out,
                      ThreadPool& pool, Isa isa) {
  assert(gate.size() == up.size() && gate.size() == out.size());
  const RowKernels* const kernels = kernels_for(activation, isa);
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

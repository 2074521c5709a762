// A small MLP behind a Linear (Houlsby et al. 2019, arXiv:1902.00751):
//   y' = y + U f(D y + d) + u
// D [size, width], U [width, size]; f as activations.h has it.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/setting.h"
#include "compress/kernels/activations.h"

namespace llmpress {

// What f is called in recipes and files.
inline constexpr Named<Activation> kBottleneckActivations[] = {
    {"relu", Activation::kRelu},
    {"gelu", Activation::kGeluErf},
    {"silu", Activation::kSilu}};

struct Bottleneck {
  MatrixF down{};                  // [size, width]
  std::vector<float> down_bias{};  // [size]
  MatrixF up{};                    // [width, size]
  std::vector<float> up_bias{};    // [width]
  Activation activation = Activation::kRelu;

  std::size_t size() const { return down.rows(); }
  std::size_t width() const { return down.cols(); }
  std::size_t numbers() const {
    return down.size() + up.size() + down_bias.size() + up_bias.size();
  }
};

// D Y + d, [rows, size]: what f is applied to.
MatrixF squeezed(const Bottleneck& bottleneck, ConstMatrixView Y,
                 ThreadPool& pool);

// Y [rows, width] <- y'.
void apply_in_place(const Bottleneck& bottleneck, MatrixView<float> Y, Isa isa,
                    ThreadPool& pool);

}  // namespace llmpress

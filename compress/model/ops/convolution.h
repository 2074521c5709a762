// A causal convolution of each channel over the last tokens of its sequence.
#pragma once

#include <cstddef>
#include <optional>

#include "compress/kernels/activations.h"
#include "compress/model/ops/op_context.h"
#include "compress/model/ops/op_gradients.h"

namespace llmpress {

// in: x [tokens, channels]; out: the same shape,
//   y[t, c] = activation(bias[c] + sum_k w[c, k] x[t - kernel + 1 + k, c])
// with zeros before the sequence. The state holds the last kernel - 1 inputs,
// [kernel - 1, channels], the oldest first.
struct ConvolutionOp {
  std::size_t kernel = 4;
  std::size_t weight = 0;             // parameter [channels, 1, kernel]
  std::optional<std::size_t> bias{};  // parameter [channels]
  std::optional<Activation> activation{};
  std::size_t slot = 0;

  bool operator==(const ConvolutionOp&) const = default;
};

void run(const ConvolutionOp& op, const OpContext& context,
         const OpArguments& arguments);
void backward(const ConvolutionOp& op, const OpContext& context,
              const OpGradients& gradients);

}  // namespace llmpress

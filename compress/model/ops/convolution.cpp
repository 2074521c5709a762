#include "compress/model/ops/convolution.h"

#include <algorithm>

#include "compress/model/ops/recurrence.h"

namespace llmpress {
namespace {

// Rows [first, first + rows) of Y from those of X and what came before them.
void convolve(const ConvolutionOp& op, const OpContext& context,
              ConstMatrixView X, std::size_t first, std::size_t rows,
              std::span<float> state, MatrixView<float> Y) {
  const std::vector<float>& weight = context.parameters[op.weight];
  const std::size_t channels = X.cols(), before = op.kernel - 1;
  // Input `i` of the sequence's last `before` and its new rows.
  const auto input = [&](std::size_t i) {
    return i < before
               ? std::span<const float>(state).subspan(i * channels, channels)
               : X.row(first + i - before);
  };
  for (std::size_t t = 0; t < rows; ++t) {
    const auto y = Y.row(first + t);
    if (op.bias) std::ranges::copy(context.parameters[*op.bias], y.begin());
    for (std::size_t k = 0; k < op.kernel; ++k) {
      const auto x = input(t + k);
      for (std::size_t c = 0; c < channels; ++c) {
        y[c] += weight[c * op.kernel + k] * x[c];
      }
    }
  }
  std::vector<float> last(before * channels);
  for (std::size_t i = 0; i < before; ++i) {
    std::ranges::copy(input(rows + i),
                      last.begin() + static_cast<std::ptrdiff_t>(i * channels));
  }
  std::ranges::copy(last, state.begin());
}

}  // namespace

void run(const ConvolutionOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  MatrixF Y(X.rows(), X.cols());
  for_each_sequence(context, op.slot, (op.kernel - 1) * X.cols(), 1,
                    [&](std::size_t first, std::size_t rows, std::size_t,
                        std::span<float> state) {
                      convolve(op, context, X, first, rows, state, Y.view());
                    });
  if (op.activation) {
    activate_in_place(*op.activation, Y.view(), *context.pool, context.isa);
  }
  arguments.put(std::move(Y));
}

}  // namespace llmpress

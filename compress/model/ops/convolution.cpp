#include "compress/model/ops/convolution.h"

#include <algorithm>

#include "compress/kernels/activations_backward.h"
#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

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

// The sums of all sequences, before the activation.
MatrixF convolve_all(const ConvolutionOp& op, const OpContext& context,
                     ConstMatrixView X) {
  MatrixF Y(X.rows(), X.cols());
  for_each_sequence(context, op.slot, (op.kernel - 1) * X.cols(), 1,
                    [&](std::size_t first, std::size_t rows, std::size_t,
                        std::span<float> state) {
                      convolve(op, context, X, first, rows, state, Y.view());
                    });
  return Y;
}

struct Gradients {
  MatrixView<float> X;
  SequenceSums weight, bias;
};

// Channels [first, first + count) of one sequence: dx and dw of every tap.
void reverse_channels(const ConvolutionOp& op, std::span<const float> weight,
                      ConstMatrixView X, ConstMatrixView dZ,
                      const SequenceRows& s, std::size_t first,
                      std::size_t count, Gradients& d) {
  const std::size_t kernel = op.kernel;
  std::vector<float> taps(kernel * count), dx(count);  // [kernel, count]
  std::vector<double> dw(kernel * count), d_weight(count * kernel);
  for (std::size_t i = 0; i < taps.size(); ++i) {
    taps[i] = weight[(first + i % count) * kernel + i / count];
  }
  for (std::size_t t = 0; t < s.rows; ++t) {
    const float* const x = X.row(s.first + t).data() + first;
    std::ranges::fill(dx, 0.0f);
    for (std::size_t k = 0; k < kernel; ++k) {
      const std::size_t to = t + kernel - 1 - k;  // the output that it is in
      if (to >= s.rows) continue;
      const float* const dz = dZ.row(s.first + to).data() + first;
      const float* const w = taps.data() + k * count;
      double* const sum = dw.data() + k * count;
      for (std::size_t c = 0; c < count; ++c) {
        dx[c] += w[c] * dz[c];
        sum[c] += static_cast<double>(dz[c] * x[c]);
      }
    }
    add_row(dx, d.X, s.first + t, first);
  }
  for (std::size_t i = 0; i < dw.size(); ++i) {
    d_weight[i % count * kernel + i / count] = dw[i];
  }
  d.weight.add(s.index, first * kernel, d_weight);
}

void reverse_bias(ConstMatrixView dZ, const SequenceRows& s, std::size_t first,
                  std::size_t count, SequenceSums& d_bias) {
  std::vector<double> sum(count);
  for (std::size_t t = s.first; t < s.first + s.rows; ++t) {
    const float* const dz = dZ.row(t).data() + first;
    for (std::size_t c = 0; c < count; ++c) {
      sum[c] += static_cast<double>(dz[c]);
    }
  }
  d_bias.add(s.index, first, sum);
}

}  // namespace

void run(const ConvolutionOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF Y = convolve_all(op, context, arguments.input(0));
  if (op.activation) {
    activate_in_place(*op.activation, Y.view(), *context.pool, context.isa);
  }
  arguments.put(std::move(Y));
}

void backward(const ConvolutionOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView X = gradients.input(0);
  const std::size_t channels = X.cols(), sequences = context.segments.size();
  ConstMatrixView dZ = gradients.gradient();
  MatrixF made;  // dZ where it is not dY
  if (op.activation) {
    made = MatrixF(X.rows(), channels);
    activation_backward(*op.activation, convolve_all(op, context, X).view(), dZ,
                        made.view(), *context.pool, context.isa);
    dZ = made.view();
  }
  Gradients d{
      gradients.to_add(0),
      SequenceSums(gradients.parameter(op.weight), sequences),
      SequenceSums(op.bias ? gradients.parameter(*op.bias) : std::span<float>(),
                   sequences)};
  const std::size_t parts = channel_parts(channels), count = channels / parts;
  for_each_part(context, parts, [&](const SequenceRows& s, std::size_t part) {
    reverse_channels(op, context.parameters[op.weight], X, dZ, s, part * count,
                     count, d);
    if (d.bias.wanted()) {
      reverse_bias(dZ, s, part * count, count, d.bias);
    }
  });
  d.weight.add_up();
  d.bias.add_up();
}

}  // namespace llmpress

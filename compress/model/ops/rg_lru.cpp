#include "compress/model/ops/rg_lru.h"

#include <algorithm>
#include <cmath>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/rope.h"

namespace llmpress {
namespace {

constexpr float kDecayFactor = 8;

// gate = sigmoid(x W + b); x, b and gate of one block, W [x, gate].
void block_gate(std::span<const float> x, std::span<const float> weight,
                std::span<const float> bias, std::span<float> gate) {
  std::ranges::copy(bias, gate.begin());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float* const w = weight.data() + i * gate.size();
    for (std::size_t j = 0; j < gate.size(); ++j) gate[j] += x[i] * w[j];
  }
  for (float& g : gate) g = sigmoid(g);
}

}  // namespace

void run(const RgLruOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  MatrixF H(X.rows(), X.cols());
  const auto positions = row_positions(context.segments);
  const std::size_t width = op.width / op.blocks, square = width * width;
  const auto parameter = [&](std::size_t index, std::size_t first,
                             std::size_t size) {
    return std::span<const float>(context.parameters[index])
        .subspan(first, size);
  };
  for_each_sequence(
      context, op.slot, op.width, op.blocks,
      [&](std::size_t first, std::size_t rows, std::size_t block,
          std::span<float> state) {
        const std::size_t at = block * width;
        const auto decay = parameter(op.decay, at, width);
        std::vector<float> input(width), recurrent(width);
        for (std::size_t t = first; t < first + rows; ++t) {
          const auto x = X.row(t).subspan(at, width);
          block_gate(x, parameter(op.input_weight, block * square, square),
                     parameter(op.input_bias, at, width), input);
          block_gate(x, parameter(op.recurrent_weight, block * square, square),
                     parameter(op.recurrent_bias, at, width), recurrent);
          for (std::size_t c = 0; c < width; ++c) {
            const float log_a =
                -kDecayFactor * recurrent[c] * softplus(decay[c]);
            const bool start = positions[t] == 0;
            const float keep = start ? 0 : std::exp(log_a);
            const float take = start ? 1 : std::sqrt(1 - std::exp(2 * log_a));
            state[c] = keep * state[c] + take * (input[c] * x[c]);
            H(t, at + c) = state[c];
          }
        }
      });
  arguments.put(std::move(H));
}

}  // namespace llmpress

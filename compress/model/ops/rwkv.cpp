#include "compress/model/ops/rwkv.h"

#include <algorithm>
#include <cmath>

#include "compress/model/ops/recurrence.h"

namespace llmpress {
namespace {

constexpr std::size_t kWkvState = 3;

// Adds weight exp(`power`) to a mean kept as a / b with the factor exp(m).
void accumulate(float power, float v, float& a, float& b, float& m) {
  const float top = b == 0 ? power : std::max(m, power);
  const float past = b == 0 ? 0 : std::exp(m - top);
  const float weight = std::exp(power - top);
  a = past * a + weight * v;
  b = past * b + weight;
  m = top;
}

// One token of one channel.
float wkv_step(float k, float v, float decay, float bonus, float* state) {
  float a = state[0], b = state[1], m = state[2];
  accumulate(k + bonus, v, a, b, m);
  state[2] -= decay;
  accumulate(k, v, state[0], state[1], state[2]);
  return a / b;
}

}  // namespace

void run(const TokenShiftOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0);
  MatrixF Y(X.rows(), X.cols());
  for_each_sequence(context, op.slot, X.cols(), 1,
                    [&](std::size_t first, std::size_t rows, std::size_t,
                        std::span<float> state) {
                      for (std::size_t t = first; t < first + rows; ++t) {
                        std::ranges::copy(state, Y.row(t).begin());
                        std::ranges::copy(X.row(t), state.begin());
                      }
                    });
  arguments.put(std::move(Y));
}

void run(const InterpolateOp& op, const OpContext& context,
         const OpArguments& arguments) {
  MatrixF Y = arguments.take(0);
  const ConstMatrixView B = arguments.input(1);
  const std::vector<float>& mix = context.parameters[op.mix];
  for (std::size_t t = 0; t < Y.rows(); ++t) {
    const auto y = Y.row(t);
    const auto b = B.row(t);
    for (std::size_t c = 0; c < y.size(); ++c) {
      y[c] = mix[c] * y[c] + (1 - mix[c]) * b[c];
    }
  }
  arguments.put(std::move(Y));
}

void run(const WkvOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView K = arguments.input(0), V = arguments.input(1);
  MatrixF Y(K.rows(), K.cols());
  const std::vector<float>& bonus = context.parameters[op.bonus];
  std::vector<float> decay = context.parameters[op.decay];
  for (float& d : decay) d = std::exp(d);
  const std::size_t parts = channel_parts(op.channels);
  const std::size_t channels = op.channels / parts;
  for_each_sequence(context, op.slot, op.channels * kWkvState, parts,
                    [&](std::size_t first, std::size_t rows, std::size_t part,
                        std::span<float> state) {
                      for (std::size_t t = first; t < first + rows; ++t) {
                        for (std::size_t i = 0; i < channels; ++i) {
                          const std::size_t c = part * channels + i;
                          Y(t, c) =
                              wkv_step(K(t, c), V(t, c), decay[c], bonus[c],
                                       state.data() + i * kWkvState);
                        }
                      }
                    });
  arguments.put(std::move(Y));
}

}  // namespace llmpress

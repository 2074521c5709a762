#include "compress/model/ops/rwkv.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

namespace llmpress {
namespace {

constexpr std::size_t kWkvState = 3, kColumnsPerTask = 256;

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

// Columns [begin, end) of dmix: the sums over the tokens of dY (a - b).
void add_mix(const OpGradients& gradients, std::size_t begin, std::size_t end,
             std::span<float> d_mix) {
  const ConstMatrixView A = gradients.input(0), B = gradients.input(1),
                        dY = gradients.gradient();
  std::vector<double> sums(end - begin);
  for (std::size_t t = 0; t < dY.rows(); ++t) {
    const auto a = A.row(t), b = B.row(t), dy = dY.row(t);
    for (std::size_t c = begin; c < end; ++c) {
      sums[c - begin] += static_cast<double>(dy[c] * (a[c] - b[c]));
    }
  }
  for (std::size_t c = begin; c < end; ++c) {
    d_mix[c] += static_cast<float>(sums[c - begin]);
  }
}

// One channel of WkvOp in reverse. With D the divisor of a token's output, the
// loss changes with a after the token in hand by alpha and with b by -beta:
//   alpha <- exp(-exp(decay)) alpha + dout / D
//   beta  <- exp(-exp(decay)) beta  + dout out / D
// Both are divided by exp(m), as a and b are: 1 / D knows no bounds, but
// exp(k) / D, where a token is part of D, is at most 1.
class ReverseChannel {
 public:
  ReverseChannel(float decay, float bonus) : decay_(decay), bonus_(bonus) {}

  // `before`: a, b and their m before the token. Sets dk and dv.
  void reverse(float k, float v, float d_out, const float* before) {
    float a = before[0], b = before[1], m = before[2];
    accumulate(k + bonus_, v, a, b, m);
    const float out = a / b;
    const float now = d_out * std::exp(k + bonus_ - m) / b;
    const float later = std::exp(k + m_);
    dv = now + later * alpha_;
    dk = now * (v - out) + later * (v * alpha_ - beta_);
    d_bonus += static_cast<double>(now * (v - out));
    if (before[1] != 0) {
      const float kept = std::exp(before[2] + m_ - decay_);
      d_decay -= static_cast<double>(
          kept * (alpha_ * before[0] - beta_ * before[1]) * decay_);
    }
    const float top = std::max(m_ - decay_, -m);
    const float past = std::exp(m_ - decay_ - top);
    const float part = d_out * std::exp(-m - top) / b;
    alpha_ = past * alpha_ + part;
    beta_ = past * beta_ + part * out;
    m_ = top;
  }

  float dk = 0, dv = 0;             // of the token in hand
  double d_decay = 0, d_bonus = 0;  // of all tokens

 private:
  float decay_, bonus_;  // exp(decay), bonus
  float alpha_ = 0, beta_ = 0;
  float m_ = -std::numeric_limits<float>::infinity();
};

struct WkvGradients {
  MatrixView<float> K, V;
  SequenceSums decay, bonus;
};

// Channels [first, first + decay.size()) of one sequence.
void reverse_wkv(ConstMatrixView K, ConstMatrixView V, ConstMatrixView dY,
                 const SequenceRows& s, std::size_t first,
                 std::span<const float> decay, std::span<const float> bonus,
                 WkvGradients& d) {
  const std::size_t count = decay.size();
  std::vector<ReverseChannel> channels;
  for (std::size_t i = 0; i < count; ++i) {
    channels.emplace_back(decay[i], bonus[i]);
  }
  std::vector<float> dk(count), dv(count);
  reverse_states(
      s.rows, count * kWkvState,
      [&](std::size_t t, std::span<float> state) {
        const auto k = K.row(s.first + t), v = V.row(s.first + t);
        for (std::size_t i = 0; i < count; ++i) {
          wkv_step(k[first + i], v[first + i], decay[i], bonus[i],
                   state.data() + i * kWkvState);
        }
      },
      [&](std::size_t t, std::span<const float> before,
          std::span<const float>) {
        const std::size_t row = s.first + t;
        for (std::size_t i = 0; i < count; ++i) {
          channels[i].reverse(K(row, first + i), V(row, first + i),
                              dY(row, first + i),
                              before.data() + i * kWkvState);
          dk[i] = channels[i].dk;
          dv[i] = channels[i].dv;
        }
        add_row(dk, d.K, row, first);
        add_row(dv, d.V, row, first);
      });
  for (std::size_t i = 0; i < count; ++i) {
    d.decay.add(s.index, first + i, {&channels[i].d_decay, 1});
    d.bonus.add(s.index, first + i, {&channels[i].d_bonus, 1});
  }
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

void backward(const TokenShiftOp&, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView dY = gradients.gradient();
  const auto dX = gradients.to_add(0);
  for_each_part(context, 1, [&](const SequenceRows& s, std::size_t) {
    for (std::size_t t = s.first; t + 1 < s.first + s.rows; ++t) {
      add_row(dY.row(t + 1), dX, t, 0);
    }
  });
}

void backward(const InterpolateOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView dY = gradients.gradient();
  const std::vector<float>& mix = context.parameters[op.mix];
  std::vector<float> rest = mix;
  for (float& m : rest) m = 1 - m;
  const auto add_scaled = [&](const std::vector<float>& factor,
                              MatrixView<float> d) {
    for (std::size_t t = 0; t < d.rows(); ++t) {
      const auto dy = dY.row(t);
      const auto to = d.row(t);
      for (std::size_t c = 0; c < to.size(); ++c) to[c] += factor[c] * dy[c];
    }
  };
  add_scaled(mix, gradients.to_add(0));
  add_scaled(rest, gradients.to_add(1));
  const auto d_mix = gradients.parameter(op.mix);
  context.pool->for_ranges(d_mix.size(), kColumnsPerTask,
                           [&](std::size_t begin, std::size_t end) {
                             add_mix(gradients, begin, end, d_mix);
                           });
}

void backward(const WkvOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const std::size_t sequences = context.segments.size();
  WkvGradients d{gradients.to_add(0), gradients.to_add(1),
                 SequenceSums(gradients.parameter(op.decay), sequences),
                 SequenceSums(gradients.parameter(op.bonus), sequences)};
  const std::vector<float>& bonus = context.parameters[op.bonus];
  std::vector<float> decay = context.parameters[op.decay];
  for (float& x : decay) x = std::exp(x);
  const std::size_t parts = channel_parts(op.channels);
  const std::size_t channels = op.channels / parts;
  for_each_part(context, parts, [&](const SequenceRows& s, std::size_t part) {
    const std::size_t first = part * channels;
    reverse_wkv(gradients.input(0), gradients.input(1), gradients.gradient(), s,
                first, std::span(decay).subspan(first, channels),
                std::span(bonus).subspan(first, channels), d);
  });
  d.decay.add_up();
  d.bonus.add_up();
}

}  // namespace llmpress

#include "compress/model/ops/selective_scan.h"

#include <cmath>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

namespace llmpress {
namespace {

// One token of one channel; gives s . C.
float scan_step(std::span<const float> A, float d, float x,
                std::span<const float> B, std::span<const float> C, float* s) {
  float sum = 0;
  for (std::size_t n = 0; n < A.size(); ++n) {
    s[n] = std::exp(A[n] * d) * s[n] + d * x * B[n];
    sum += s[n] * C[n];
  }
  return sum;
}

std::vector<float> rates(const std::vector<float>& A_log) {
  std::vector<float> A = A_log;
  for (float& a : A) a = -std::exp(a);
  return A;
}

struct Inputs {
  ConstMatrixView X, dt, B, C;
};

struct InputGradients {
  MatrixView<float> X, dt, B, C;  // B and C of this part of the channels
};

// Channels [first, first + count) in reverse. The state that is kept holds the
// factors exp(A d) of the last token beside s: [2, count, state].
class ReversePart {
 public:
  std::vector<double> d_A_log, d_D;  // of all tokens

  ReversePart(const Inputs& in, std::span<const float> A,
              std::span<const float> D, std::size_t first,
              const InputGradients& to)
      : d_A_log(A.size()),
        d_D(D.size()),
        in_(in),
        A_(A),
        D_(D),
        first_(first),
        to_(to),
        G_(A.size()),
        dx_(D.size()),
        d_dt_(D.size()) {}

  std::size_t state_size() const { return 2 * A_.size(); }

  void advance(std::size_t t, std::span<float> state) const {
    const auto B = in_.B.row(t);
    const std::size_t N = B.size();
    for (std::size_t i = 0; i < D_.size(); ++i) {
      float* const s = state.data() + i * N;
      float* const factor = s + A_.size();
      const float d = softplus(in_.dt(t, first_ + i));
      const float dx = d * in_.X(t, first_ + i);
      for (std::size_t n = 0; n < N; ++n) {
        factor[n] = std::exp(A_[i * N + n] * d);
        s[n] = factor[n] * s[n] + dx * B[n];
      }
    }
  }

  void reverse(std::size_t t, std::span<const float> dy,
               std::span<const float> before, std::span<const float> after) {
    for (std::size_t i = 0; i < D_.size(); ++i) {
      reverse_channel(t, i, dy[i], before, after);
    }
    add_row(dx_, to_.X, t, first_);
    add_row(d_dt_, to_.dt, t, first_);
  }

 private:
  // With G with respect to s after the token:
  //   G += dy C, dC = dy s, dB = d x G, d(exp(A d)) = G s before
  void reverse_channel(std::size_t t, std::size_t i, float dy,
                       std::span<const float> before,
                       std::span<const float> after) {
    const auto B = in_.B.row(t), C = in_.C.row(t);
    const std::size_t N = B.size(), at = i * N;
    const float dt = in_.dt(t, first_ + i), x = in_.X(t, first_ + i);
    const float d = softplus(dt);
    float* const db = to_.B.row(t).data();
    float* const dc = to_.C.row(t).data();
    float through = 0, d_d = 0;
    for (std::size_t n = 0; n < N; ++n) {
      float& g = G_[at + n];
      const float factor = after[A_.size() + at + n];
      g += dy * C[n];
      dc[n] += dy * after[at + n];
      db[n] += d * x * g;
      through += g * B[n];
      const float of_exponent = g * before[at + n] * factor;
      d_d += of_exponent * A_[at + n];
      d_A_log[at + n] += static_cast<double>(of_exponent * d * A_[at + n]);
      g *= factor;
    }
    dx_[i] = d * through + D_[i] * dy;
    d_dt_[i] = (d_d + x * through) * sigmoid(dt);
    d_D[i] += static_cast<double>(dy * x);
  }

  const Inputs& in_;
  std::span<const float> A_, D_;  // of these channels
  std::size_t first_;
  InputGradients to_;
  std::vector<float> G_, dx_, d_dt_;
};

}  // namespace

void run(const SelectiveScanOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0), dt = arguments.input(1),
                        B = arguments.input(2), C = arguments.input(3);
  MatrixF Y(X.rows(), X.cols());
  const std::vector<float>& D = context.parameters[op.D];
  const std::vector<float> A = rates(context.parameters[op.A_log]);
  const std::size_t N = op.state, parts = channel_parts(op.channels);
  const std::size_t channels = op.channels / parts;
  for_each_sequence(
      context, op.slot, op.channels * N, parts,
      [&](std::size_t first, std::size_t rows, std::size_t part,
          std::span<float> S) {
        for (std::size_t t = first; t < first + rows; ++t) {
          for (std::size_t i = 0; i < channels; ++i) {
            const std::size_t c = part * channels + i;
            const auto a = std::span<const float>(A).subspan(c * N, N);
            Y(t, c) = scan_step(a, softplus(dt(t, c)), X(t, c), B.row(t),
                                C.row(t), S.data() + i * N) +
                      D[c] * X(t, c);
          }
        }
      });
  arguments.put(std::move(Y));
}

void backward(const SelectiveScanOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const Inputs in{gradients.input(0), gradients.input(1), gradients.input(2),
                  gradients.input(3)};
  const ConstMatrixView dY = gradients.gradient();
  const auto dX = gradients.to_add(0), d_dt = gradients.to_add(1),
             dB = gradients.to_add(2), dC = gradients.to_add(3);
  SequenceSums d_A_log(gradients.parameter(op.A_log), context.segments.size());
  SequenceSums d_D(gradients.parameter(op.D), context.segments.size());
  const std::vector<float> A = rates(context.parameters[op.A_log]);
  const std::size_t N = op.state, parts = channel_parts(op.channels);
  const std::size_t channels = op.channels / parts;
  std::vector<MatrixF> B_parts(parts, MatrixF(in.B.rows(), N));
  std::vector<MatrixF> C_parts = B_parts;
  for_each_part(context, parts, [&](const SequenceRows& s, std::size_t part) {
    const std::size_t first = part * channels;
    const auto D = std::span(context.parameters[op.D]).subspan(first, channels);
    ReversePart reversed(
        in, std::span(A).subspan(first * N, channels * N), D, first,
        {dX, d_dt, B_parts[part].view(), C_parts[part].view()});
    reverse_states(
        s.rows, reversed.state_size(),
        [&](std::size_t i, std::span<float> state) {
          reversed.advance(s.first + i, state);
        },
        [&](std::size_t i, std::span<const float> before,
            std::span<const float> after) {
          const std::size_t t = s.first + i;
          reversed.reverse(t, dY.row(t).subspan(first, channels), before,
                           after);
        });
    d_A_log.add(s.index, first * N, reversed.d_A_log);
    d_D.add(s.index, first, reversed.d_D);
  });
  add_parts(B_parts, dB, *context.pool);
  add_parts(C_parts, dC, *context.pool);
  d_A_log.add_up();
  d_D.add_up();
}

}  // namespace llmpress

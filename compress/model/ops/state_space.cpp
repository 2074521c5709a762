#include "compress/model/ops/state_space.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

namespace llmpress {
namespace {

struct Inputs {
  ConstMatrixView X, B, C, dt;
};

// One head, a token at a time.
class Head {
 public:
  Head(const StateSpaceOp& op, const OpContext& context, const Inputs& in,
       std::size_t h)
      : op_(op),
        in_(in),
        h_(h),
        P_(op.head_dim),
        N_(op.state),
        group_at_(h / (op.heads / op.groups) * op.state),
        A_(-std::exp(context.parameters[op.A_log][h])),
        D_(context.parameters[op.D][h]),
        bias_(context.parameters[op.dt_bias][h]) {}

  // S <- S after token t; y = S C + D x, if y is not empty.
  void take_token(std::size_t t, std::span<float> S, std::span<float> y) {
    read(t);
    const float* const b = b_.data();
    const float* const c = c_.data();
    const float decay = decay_;
    const std::size_t size = N_;
    for (std::size_t p = 0; p < P_; ++p) {
      float* const s = S.data() + p * size;
      const float in = d_ * x_[p];
      if (y.empty()) {
        for (std::size_t n = 0; n < size; ++n) s[n] = decay * s[n] + in * b[n];
        continue;
      }
      float sum = 0;
      for (std::size_t n = 0; n < size; ++n) {
        s[n] = decay * s[n] + in * b[n];
        sum += s[n] * c[n];
      }
      y[p] = sum + D_ * x_[p];
    }
  }

 protected:
  void read(std::size_t t) {
    free_ = softplus(in_.dt(t, h_) + bias_);
    d_ = std::clamp(free_, op_.dt_min, op_.dt_max);
    decay_ = std::exp(A_ * d_);
    x_ = in_.X.row(t).subspan(h_ * P_, P_);
    b_ = in_.B.row(t).subspan(group_at_, N_);
    c_ = in_.C.row(t).subspan(group_at_, N_);
  }

  const StateSpaceOp& op_;
  const Inputs& in_;
  std::size_t h_, P_, N_, group_at_;
  float A_, D_, bias_;
  // Of the token in hand: d before its limits and after, exp(A d), rows.
  float free_ = 0, d_ = 0, decay_ = 0;
  std::span<const float> x_{}, b_{}, c_{};
};

struct InputGradients {
  MatrixView<float> X, B, C, dt;  // B and C of one part of the heads
};

// A head in reverse. G [head_dim, state] is what the loss changes by with the
// state after the token in hand:
//   G += dy C^T, dC = S^T dy, dB = d G^T x, dx = d G B + D dy
//   d(exp(A d)) = G . S before
class ReverseHead : public Head {
 public:
  ReverseHead(const StateSpaceOp& op, const OpContext& context,
              const Inputs& in, std::size_t h, const InputGradients& d)
      : Head(op, context, in, h), to_(d), G_(P_ * N_), dx_(P_) {}

  void reverse(std::size_t t, std::span<const float> dy,
               std::span<const float> before, std::span<const float> after) {
    read(t);
    float* const db = to_.B.row(t).data() + group_at_;
    float* const dc = to_.C.row(t).data() + group_at_;
    const float* const c = c_.data();
    const float decay = decay_;
    float d_decay = 0, d_d = 0;
    for (std::size_t p = 0; p < P_; ++p) {
      float* const g = G_.data() + p * N_;
      const float* const s = after.data() + p * N_;
      const float in = d_ * x_[p], of_y = dy[p];
      for (std::size_t n = 0; n < N_; ++n) {
        g[n] += of_y * c[n];
        dc[n] += of_y * s[n];
        db[n] += in * g[n];
      }
      const float through = dot(g, b_.data(), N_);
      dx_[p] = d_ * through + D_ * dy[p];
      d_d += x_[p] * through;
      d_decay += dot(g, before.data() + p * N_, N_);
      for (std::size_t n = 0; n < N_; ++n) g[n] *= decay;
    }
    d_D += static_cast<double>(dot(dy.data(), x_.data(), P_));
    d_A_ += static_cast<double>(d_decay * decay_ * d_);
    add_token(t, d_d + d_decay * decay_ * A_);
  }

  double d_A_log() const { return d_A_ * static_cast<double>(A_); }
  double d_D = 0, d_bias = 0;  // of all tokens

 private:
  // Nothing passes a limit that holds d.
  void add_token(std::size_t t, float d_d) {
    add_row(dx_, to_.X, t, h_ * P_);
    if (free_ < op_.dt_min || free_ > op_.dt_max) return;
    const float d_dt = d_d * sigmoid(in_.dt(t, h_) + bias_);
    add_row({&d_dt, 1}, to_.dt, t, h_);
    d_bias += static_cast<double>(d_dt);
  }

  const InputGradients& to_;
  std::vector<float> G_, dx_;
  double d_A_ = 0;
};

// Into how many equal parts the heads of a group are dealt. Each has a B and C
// gradient of its own to add to, so they should not be many.
std::size_t parts_of_group(const StateSpaceOp& op) {
  constexpr std::size_t kMost = 16;
  return std::gcd(op.heads / op.groups,
                  std::max<std::size_t>(1, kMost / op.groups));
}

struct ParameterSums {
  SequenceSums A_log, D, bias;
};

// Head h of one sequence.
void reverse_head(const StateSpaceOp& op, const OpContext& context,
                  const Inputs& in, ConstMatrixView dY, const SequenceRows& s,
                  std::size_t h, const InputGradients& d, ParameterSums& sums) {
  const std::size_t P = op.head_dim;
  ReverseHead head(op, context, in, h, d);
  reverse_states(
      s.rows, P * op.state,
      [&](std::size_t i, std::span<float> S) {
        head.take_token(s.first + i, S, {});
      },
      [&](std::size_t i, std::span<const float> before,
          std::span<const float> after) {
        const std::size_t t = s.first + i;
        head.reverse(t, dY.row(t).subspan(h * P, P), before, after);
      });
  const double d_A_log = head.d_A_log();
  sums.A_log.add(s.index, h, {&d_A_log, 1});
  sums.D.add(s.index, h, {&head.d_D, 1});
  sums.bias.add(s.index, h, {&head.d_bias, 1});
}

}  // namespace

void run(const StateSpaceOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const Inputs in{arguments.input(0), arguments.input(1), arguments.input(2),
                  arguments.input(3)};
  MatrixF Y(in.X.rows(), in.X.cols());
  const std::size_t N = op.state, P = op.head_dim;
  for_each_sequence(context, op.slot, op.heads * P * N, op.heads,
                    [&](std::size_t first, std::size_t rows, std::size_t h,
                        std::span<float> S) {
                      Head head(op, context, in, h);
                      for (std::size_t t = first; t < first + rows; ++t) {
                        head.take_token(t, S, Y.row(t).subspan(h * P, P));
                      }
                    });
  arguments.put(std::move(Y));
}

void backward(const StateSpaceOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const Inputs in{gradients.input(0), gradients.input(1), gradients.input(2),
                  gradients.input(3)};
  const ConstMatrixView dY = gradients.gradient();
  const auto dX = gradients.to_add(0), dB = gradients.to_add(1),
             dC = gradients.to_add(2), d_dt = gradients.to_add(3);
  const auto sums_of = [&](std::size_t parameter) {
    return SequenceSums(gradients.parameter(parameter),
                        context.segments.size());
  };
  ParameterSums sums{sums_of(op.A_log), sums_of(op.D), sums_of(op.dt_bias)};
  const std::size_t splits = parts_of_group(op), parts = op.groups * splits;
  std::vector<MatrixF> B_parts(splits, MatrixF(in.B.rows(), in.B.cols()));
  std::vector<MatrixF> C_parts = B_parts;
  for_each_part(context, parts, [&](const SequenceRows& s, std::size_t part) {
    const std::size_t size = op.heads / parts;
    const InputGradients d{dX, B_parts[part % splits].view(),
                           C_parts[part % splits].view(), d_dt};
    for (std::size_t h = 0; h < size; ++h) {
      reverse_head(op, context, in, dY, s, part * size + h, d, sums);
    }
  });
  add_parts(B_parts, dB, *context.pool);
  add_parts(C_parts, dC, *context.pool);
  sums.A_log.add_up();
  sums.D.add_up();
  sums.bias.add_up();
}

}  // namespace llmpress

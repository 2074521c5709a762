#include "compress/model/ops/delta_rule.h"

#include <algorithm>
#include <cmath>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

namespace llmpress {
namespace {

constexpr float kEpsilon = 1e-6f;

// Gives what multiplies `from`.
float copy_normed(std::span<const float> from, float factor,
                  std::span<float> to) {
  float sum = 0;
  for (const float x : from) sum += x * x;
  const float scale = factor / std::sqrt(sum + kEpsilon);
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i] * scale;
  return scale;
}

// In place: d with respect to y = scale x, which copy_normed made with
// `factor`, becomes that with respect to x:
//   scale (d - y (y . d) / factor^2)
void reverse_norm(std::span<const float> y, float scale, float factor,
                  std::span<float> d) {
  const float along = dot(y.data(), d.data(), y.size()) / (factor * factor);
  for (std::size_t i = 0; i < d.size(); ++i) {
    d[i] = scale * (d[i] - y[i] * along);
  }
}

struct Inputs {
  ConstMatrixView Q, K, V, a, b;
};

// What a token brings to one value head.
struct Token {
  std::vector<float> q, k;     // normed [key_dim]
  std::span<const float> v{};  // [value_dim]
  float q_scale = 0, k_scale = 0;
  float time = 0, decay = 0;  // softplus(a + dt_bias), exp(g)
  float beta = 0;
};

// One value head, a token at a time.
class Head {
 public:
  Head(const DeltaRuleOp& op, const OpContext& context, const Inputs& in,
       std::size_t h)
      : in_(in),
        h_(h),
        key_at_(h / (op.value_heads / op.key_heads) * op.key_dim),
        dk_(op.key_dim),
        dv_(op.value_dim),
        q_factor_(1 / std::sqrt(static_cast<float>(dk_))),
        A_(-std::exp(context.parameters[op.A_log][h])),
        bias_(context.parameters[op.dt_bias][h]),
        token_{.q = std::vector<float>(dk_), .k = std::vector<float>(dk_)},
        delta_(dv_) {}

  // S <- S after token t; o += S^T q, if o is not empty.
  void take_token(std::size_t t, std::span<float> S, std::span<float> o) {
    read(t);
    std::ranges::fill(delta_, 0.0f);
    float* const delta = delta_.data();
    const std::size_t size = dv_;
    for (std::size_t i = 0; i < dk_; ++i) {
      float* const s = S.data() + i * size;
      const float decay = token_.decay, k = token_.k[i];
      for (std::size_t j = 0; j < size; ++j) {
        s[j] *= decay;
        delta[j] += s[j] * k;
      }
    }
    for (std::size_t j = 0; j < size; ++j) {
      delta[j] = (token_.v[j] - delta[j]) * token_.beta;
    }
    for (std::size_t i = 0; i < dk_; ++i) {
      float* const s = S.data() + i * size;
      const float k = token_.k[i], q = token_.q[i];
      if (o.empty()) {
        for (std::size_t j = 0; j < size; ++j) s[j] += k * delta[j];
        continue;
      }
      for (std::size_t j = 0; j < size; ++j) {
        s[j] += k * delta[j];
        o[j] += s[j] * q;
      }
    }
  }

 protected:
  void read(std::size_t t) {
    token_.q_scale =
        copy_normed(in_.Q.row(t).subspan(key_at_, dk_), q_factor_, token_.q);
    token_.k_scale =
        copy_normed(in_.K.row(t).subspan(key_at_, dk_), 1, token_.k);
    token_.v = in_.V.row(t).subspan(h_ * dv_, dv_);
    token_.time = softplus(in_.a(t, h_) + bias_);
    token_.decay = std::exp(A_ * token_.time);
    token_.beta = sigmoid(in_.b(t, h_));
  }

  const Inputs& in_;
  std::size_t h_, key_at_, dk_, dv_;
  float q_factor_, A_, bias_;
  Token token_;
  std::vector<float> delta_;  // [value_dim]
};

struct InputGradients {
  MatrixView<float> Q, K, V, a, b;
};

// A head in reverse. With P = exp(g) S, u = v - P^T k and S' = P + k (beta u)^T,
// G with respect to S' and d. to others:
//   G += q do^T, dq = S' do, d(beta u) = G^T k, du = beta d(beta u)
//   dk = G (beta u) - P du, dP = G - k du^T
class ReverseHead : public Head {
 public:
  ReverseHead(const DeltaRuleOp& op, const OpContext& context, const Inputs& in,
              std::size_t h, const InputGradients& d)
      : Head(op, context, in, h),
        d_(d),
        G_(dk_ * dv_),
        dq_(dk_),
        dk_row_(dk_),
        d_delta_(dv_),
        dv_row_(dv_) {}

  void reverse(std::size_t t, std::span<const float> d_o,
               std::span<const float> before, std::span<const float> after) {
    read(t);
    reverse_output(d_o, before, after);
    const float d_beta = reverse_change();
    const float d_decay = reverse_state(before);
    add_token(t, d_decay * token_.decay, d_beta);
  }

  double d_A_log() const { return d_A_ * static_cast<double>(A_); }
  double d_bias() const { return d_bias_; }

 private:
  // dq and d(beta u); P^T k into delta_.
  void reverse_output(std::span<const float> d_o, std::span<const float> before,
                      std::span<const float> after) {
    std::ranges::fill(d_delta_, 0.0f);
    std::ranges::fill(delta_, 0.0f);
    for (std::size_t i = 0; i < dk_; ++i) {
      float* const g = G_.data() + i * dv_;
      const float* const s = before.data() + i * dv_;
      const float q = token_.q[i], k = token_.k[i];
      dq_[i] = dot(after.data() + i * dv_, d_o.data(), dv_);
      for (std::size_t j = 0; j < dv_; ++j) {
        g[j] += q * d_o[j];
        d_delta_[j] += k * g[j];
        delta_[j] += k * s[j];
      }
    }
    for (float& x : delta_) x *= token_.decay;
  }

  // dv = du; beta u into delta_. Gives d(beta).
  float reverse_change() {
    float d_beta = 0;
    for (std::size_t j = 0; j < dv_; ++j) {
      const float u = token_.v[j] - delta_[j];
      d_beta += d_delta_[j] * u;
      delta_[j] = token_.beta * u;
      dv_row_[j] = token_.beta * d_delta_[j];
    }
    return d_beta;
  }

  // dk, and G with respect to the state before the token. Gives d(exp(g)).
  float reverse_state(std::span<const float> before) {
    float d_decay = 0;
    for (std::size_t i = 0; i < dk_; ++i) {
      float* const g = G_.data() + i * dv_;
      const float* const s = before.data() + i * dv_;
      dk_row_[i] = dot(g, delta_.data(), dv_) -
                   token_.decay * dot(s, dv_row_.data(), dv_);
      for (std::size_t j = 0; j < dv_; ++j) g[j] -= token_.k[i] * dv_row_[j];
      d_decay += dot(g, s, dv_);
      for (std::size_t j = 0; j < dv_; ++j) g[j] *= token_.decay;
    }
    return d_decay;
  }

  void add_token(std::size_t t, float d_g, float d_beta) {
    reverse_norm(token_.q, token_.q_scale, q_factor_, dq_);
    reverse_norm(token_.k, token_.k_scale, 1, dk_row_);
    add_row(dq_, d_.Q, t, key_at_);
    add_row(dk_row_, d_.K, t, key_at_);
    add_row(dv_row_, d_.V, t, h_ * dv_);
    const float d_a = d_g * A_ * sigmoid(in_.a(t, h_) + bias_);
    const float d_b = d_beta * token_.beta * (1 - token_.beta);
    add_row({&d_a, 1}, d_.a, t, h_);
    add_row({&d_b, 1}, d_.b, t, h_);
    d_A_ += static_cast<double>(d_g * token_.time);
    d_bias_ += static_cast<double>(d_a);
  }

  const InputGradients& d_;
  std::vector<float> G_;  // [key_dim, value_dim]
  std::vector<float> dq_, dk_row_, d_delta_, dv_row_;
  double d_A_ = 0, d_bias_ = 0;  // of all tokens
};

}  // namespace

void run(const DeltaRuleOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const Inputs in{arguments.input(0), arguments.input(1), arguments.input(2),
                  arguments.input(3), arguments.input(4)};
  const std::size_t dv = op.value_dim;
  MatrixF O(in.Q.rows(), op.value_heads * dv);
  for_each_sequence(context, op.slot, op.value_heads * op.key_dim * dv,
                    op.value_heads,
                    [&](std::size_t first, std::size_t rows, std::size_t h,
                        std::span<float> S) {
                      Head head(op, context, in, h);
                      for (std::size_t t = first; t < first + rows; ++t) {
                        head.take_token(t, S, O.row(t).subspan(h * dv, dv));
                      }
                    });
  arguments.put(std::move(O));
}

// Cut by key heads, so that each task has its columns for itself.
void backward(const DeltaRuleOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const Inputs in{gradients.input(0), gradients.input(1), gradients.input(2),
                  gradients.input(3), gradients.input(4)};
  const InputGradients d{gradients.to_add(0), gradients.to_add(1),
                         gradients.to_add(2), gradients.to_add(3),
                         gradients.to_add(4)};
  const ConstMatrixView dO = gradients.gradient();
  const std::size_t dv = op.value_dim, share = op.value_heads / op.key_heads;
  const std::size_t sequences = context.segments.size();
  SequenceSums d_A_log(gradients.parameter(op.A_log), sequences);
  SequenceSums d_bias(gradients.parameter(op.dt_bias), sequences);
  const auto reverse_head = [&](const SequenceRows& s, std::size_t h) {
    ReverseHead head(op, context, in, h, d);
    reverse_states(
        s.rows, op.key_dim * dv,
        [&](std::size_t i, std::span<float> S) {
          head.take_token(s.first + i, S, {});
        },
        [&](std::size_t i, std::span<const float> before,
            std::span<const float> after) {
          const std::size_t t = s.first + i;
          head.reverse(t, dO.row(t).subspan(h * dv, dv), before, after);
        });
    const double of_A_log = head.d_A_log(), of_bias = head.d_bias();
    d_A_log.add(s.index, h, {&of_A_log, 1});
    d_bias.add(s.index, h, {&of_bias, 1});
  };
  for_each_part(context, op.key_heads,
                [&](const SequenceRows& s, std::size_t key_head) {
                  for (std::size_t h = 0; h < share; ++h) {
                    reverse_head(s, key_head * share + h);
                  }
                });
  d_A_log.add_up();
  d_bias.add_up();
}

}  // namespace llmpress

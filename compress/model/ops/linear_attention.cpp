#include "compress/model/ops/linear_attention.h"

#include <algorithm>
#include <cmath>

#include "compress/model/ops/recurrence.h"
#include "compress/model/ops/reverse_recurrence.h"

namespace llmpress {
namespace {

// S <- keep S + k v^T; o += S^T q, if o is not empty.
void take_token(float keep, std::span<const float> k, std::span<const float> v,
                std::span<const float> q, std::span<float> S,
                std::span<float> o) {
  const std::size_t size = v.size();
  for (std::size_t i = 0; i < k.size(); ++i) {
    float* const s = S.data() + i * size;
    const float key = k[i];
    if (o.empty()) {
      for (std::size_t j = 0; j < size; ++j) s[j] = keep * s[j] + key * v[j];
      continue;
    }
    const float query = q[i];
    for (std::size_t j = 0; j < size; ++j) {
      s[j] = keep * s[j] + key * v[j];
      o[j] += query * s[j];
    }
  }
}

// One head in reverse.
struct ReverseHead {
  float keep;
  std::size_t dim;
  // With respect to the state after the token in hand [dim, dim].
  std::vector<float> G = std::vector<float>(dim * dim);
  // Of the token in hand.
  std::vector<float> dq = std::vector<float>(dim), dk = dq, dv = dq;
  double d_keep = 0;  // of all tokens

  void reverse(std::span<const float> q, std::span<const float> k,
               std::span<const float> v, std::span<const float> d_o,
               std::span<const float> before, std::span<const float> after) {
    std::ranges::fill(dv, 0.0f);
    for (std::size_t i = 0; i < dim; ++i) {
      float* const g = G.data() + i * dim;
      dq[i] = dot(after.data() + i * dim, d_o.data(), dim);
      for (std::size_t j = 0; j < dim; ++j) {
        g[j] += q[i] * d_o[j];
        dv[j] += k[i] * g[j];
      }
      dk[i] = dot(g, v.data(), dim);
      d_keep += static_cast<double>(dot(g, before.data() + i * dim, dim));
      for (std::size_t j = 0; j < dim; ++j) g[j] *= keep;
    }
  }
};

}  // namespace

void run(const LinearAttentionOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView Q = arguments.input(0), K = arguments.input(1),
                        V = arguments.input(2);
  MatrixF O(Q.rows(), Q.cols());
  const std::size_t d = op.head_dim;
  for_each_sequence(
      context, op.slot, op.heads * d * d, op.heads,
      [&](std::size_t first, std::size_t rows, std::size_t h,
          std::span<float> S) {
        const float keep = std::exp(-context.parameters[op.rate][h]);
        for (std::size_t t = first; t < first + rows; ++t) {
          take_token(keep, K.row(t).subspan(h * d, d),
                     V.row(t).subspan(h * d, d), Q.row(t).subspan(h * d, d), S,
                     O.row(t).subspan(h * d, d));
        }
      });
  arguments.put(std::move(O));
}

void backward(const LinearAttentionOp& op, const OpContext& context,
              const OpGradients& gradients) {
  const ConstMatrixView Q = gradients.input(0), K = gradients.input(1),
                        V = gradients.input(2), dO = gradients.gradient();
  const auto dQ = gradients.to_add(0), dK = gradients.to_add(1),
             dV = gradients.to_add(2);
  SequenceSums d_rate(gradients.parameter(op.rate), context.segments.size());
  const std::size_t d = op.head_dim;
  for_each_part(context, op.heads, [&](const SequenceRows& s, std::size_t h) {
    const float keep = std::exp(-context.parameters[op.rate][h]);
    const auto of = [&](ConstMatrixView X, std::size_t i) {
      return X.row(s.first + i).subspan(h * d, d);
    };
    ReverseHead head{.keep = keep, .dim = d};
    reverse_states(
        s.rows, d * d,
        [&](std::size_t i, std::span<float> S) {
          take_token(keep, of(K, i), of(V, i), {}, S, {});
        },
        [&](std::size_t i, std::span<const float> before,
            std::span<const float> after) {
          head.reverse(of(Q, i), of(K, i), of(V, i), of(dO, i), before, after);
          add_row(head.dq, dQ, s.first + i, h * d);
          add_row(head.dk, dK, s.first + i, h * d);
          add_row(head.dv, dV, s.first + i, h * d);
        });
    const double of_rate = -static_cast<double>(keep) * head.d_keep;
    d_rate.add(s.index, h, {&of_rate, 1});
  });
  d_rate.add_up();
}

}  // namespace llmpress

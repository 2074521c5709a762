#include "compress/model/ops/delta_rule.h"

#include <cmath>

#include "compress/model/ops/recurrence.h"

namespace llmpress {
namespace {

constexpr float kEpsilon = 1e-6f;

void copy_normed(std::span<const float> from, float factor,
                 std::span<float> to) {
  float sum = 0;
  for (const float x : from) sum += x * x;
  const float scale = factor / std::sqrt(sum + kEpsilon);
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i] * scale;
}

}  // namespace

void run(const DeltaRuleOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView Q = arguments.input(0), K = arguments.input(1),
                        V = arguments.input(2), a = arguments.input(3),
                        b = arguments.input(4);
  const std::size_t dk = op.key_dim, dv = op.value_dim;
  MatrixF O(Q.rows(), op.value_heads * dv);
  const float q_scale = 1 / std::sqrt(static_cast<float>(dk));
  for_each_sequence(
      context, op.slot, op.value_heads * dk * dv, op.value_heads,
      [&](std::size_t first, std::size_t rows, std::size_t h,
          std::span<float> S) {
        const std::size_t kh = h / (op.value_heads / op.key_heads);
        const float A = -std::exp(context.parameters[op.A_log][h]);
        const float bias = context.parameters[op.dt_bias][h];
        std::vector<float> q(dk), k(dk), delta(dv);
        for (std::size_t t = first; t < first + rows; ++t) {
          copy_normed(Q.row(t).subspan(kh * dk, dk), q_scale, q);
          copy_normed(K.row(t).subspan(kh * dk, dk), 1, k);
          const auto v = V.row(t).subspan(h * dv, dv);
          const auto o = O.row(t).subspan(h * dv, dv);
          const float decay = std::exp(A * softplus(a(t, h) + bias));
          const float beta = sigmoid(b(t, h));
          std::fill(delta.begin(), delta.end(), 0.0f);
          for (std::size_t i = 0; i < dk; ++i) {
            float* const s = S.data() + i * dv;
            for (std::size_t j = 0; j < dv; ++j) {
              s[j] *= decay;
              delta[j] += s[j] * k[i];
            }
          }
          for (std::size_t j = 0; j < dv; ++j) {
            delta[j] = (v[j] - delta[j]) * beta;
          }
          for (std::size_t i = 0; i < dk; ++i) {
            float* const s = S.data() + i * dv;
            for (std::size_t j = 0; j < dv; ++j) {
              s[j] += k[i] * delta[j];
              o[j] += s[j] * q[i];
            }
          }
        }
      });
  arguments.put(std::move(O));
}

}  // namespace llmpress

#include "compress/model/ops/state_space.h"

#include <algorithm>
#include <cmath>

#include "compress/model/ops/recurrence.h"

namespace llmpress {

void run(const StateSpaceOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0), B = arguments.input(1),
                        C = arguments.input(2), dt = arguments.input(3);
  MatrixF Y(X.rows(), X.cols());
  const std::size_t N = op.state, P = op.head_dim;
  for_each_sequence(context, op.slot, op.heads * P * N, op.heads,
                    [&](std::size_t first, std::size_t rows, std::size_t h,
                        std::span<float> S) {
                      const std::size_t g = h / (op.heads / op.groups);
                      const float A =
                          -std::exp(context.parameters[op.A_log][h]);
                      const float D = context.parameters[op.D][h];
                      const float bias = context.parameters[op.dt_bias][h];
                      for (std::size_t t = first; t < first + rows; ++t) {
                        const float d = std::clamp(softplus(dt(t, h) + bias),
                                                   op.dt_min, op.dt_max);
                        const float decay = std::exp(A * d);
                        const auto x = X.row(t).subspan(h * P, P);
                        const auto y = Y.row(t).subspan(h * P, P);
                        const auto b = B.row(t).subspan(g * N, N);
                        const auto c = C.row(t).subspan(g * N, N);
                        for (std::size_t p = 0; p < P; ++p) {
                          float* const s = S.data() + p * N;
                          const float in = d * x[p];
                          float sum = 0;
                          for (std::size_t n = 0; n < N; ++n) {
                            s[n] = decay * s[n] + in * b[n];
                            sum += s[n] * c[n];
                          }
                          y[p] = sum + D * x[p];
                        }
                      }
                    });
  arguments.put(std::move(Y));
}

}  // namespace llmpress

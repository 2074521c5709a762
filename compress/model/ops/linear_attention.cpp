#include "compress/model/ops/linear_attention.h"

#include <cmath>

#include "compress/model/ops/recurrence.h"

namespace llmpress {

void run(const LinearAttentionOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView Q = arguments.input(0), K = arguments.input(1),
                        V = arguments.input(2);
  MatrixF O(Q.rows(), Q.cols());
  const std::size_t d = op.head_dim;
  for_each_sequence(context, op.slot, op.heads * d * d, op.heads,
                    [&](std::size_t first, std::size_t rows, std::size_t h,
                        std::span<float> S) {
                      const float keep =
                          std::exp(-context.parameters[op.rate][h]);
                      for (std::size_t t = first; t < first + rows; ++t) {
                        const auto q = Q.row(t).subspan(h * d, d);
                        const auto k = K.row(t).subspan(h * d, d);
                        const auto v = V.row(t).subspan(h * d, d);
                        const auto o = O.row(t).subspan(h * d, d);
                        for (std::size_t i = 0; i < d; ++i) {
                          float* const s = S.data() + i * d;
                          for (std::size_t j = 0; j < d; ++j) {
                            s[j] = keep * s[j] + k[i] * v[j];
                            o[j] += q[i] * s[j];
                          }
                        }
                      }
                    });
  arguments.put(std::move(O));
}

}  // namespace llmpress

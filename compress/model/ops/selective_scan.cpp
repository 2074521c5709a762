#include "compress/model/ops/selective_scan.h"

#include <cmath>

#include "compress/model/ops/recurrence.h"

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

}  // namespace

void run(const SelectiveScanOp& op, const OpContext& context,
         const OpArguments& arguments) {
  const ConstMatrixView X = arguments.input(0), dt = arguments.input(1),
                        B = arguments.input(2), C = arguments.input(3);
  MatrixF Y(X.rows(), X.cols());
  const std::vector<float>& D = context.parameters[op.D];
  std::vector<float> A = context.parameters[op.A_log];
  for (float& a : A) a = -std::exp(a);
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

}  // namespace llmpress

#include "compress/model/bottleneck.h"

#include <utility>

#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kRowsPerTask = 64;

void add_bias(std::span<const float> bias, MatrixView<float> X,
              ThreadPool& pool) {
  pool.for_ranges(X.rows(), kRowsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t r = begin; r < end; ++r) {
                      const auto row = X.row(r);
                      for (std::size_t c = 0; c < row.size(); ++c) {
                        row[c] += bias[c];
                      }
                    }
                  });
}

}  // namespace

MatrixF squeezed(const Bottleneck& bottleneck, ConstMatrixView Y,
                 ThreadPool& pool) {
  MatrixF Z(Y.rows(), bottleneck.size());
  matmul_transposed(Y, bottleneck.down.view(), Z.view(), pool);
  add_bias(bottleneck.down_bias, Z.view(), pool);
  return Z;
}

void apply_in_place(const Bottleneck& bottleneck, MatrixView<float> Y, Isa isa,
                    ThreadPool& pool) {
  if (Y.rows() == 0) return;
  MatrixF Z = squeezed(bottleneck, Y, pool);
  activate_in_place(bottleneck.activation, Z.view(), pool, isa);
  matmul_transposed(std::as_const(Z).view(), bottleneck.up.view(), Y, pool, 1,
                    Accumulate::kAdd);
  add_bias(bottleneck.up_bias, Y, pool);
}

}  // namespace llmpress

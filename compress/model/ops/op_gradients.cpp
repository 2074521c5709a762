#include "compress/model/ops/op_gradients.h"

#include <algorithm>
#include <cassert>

#include "compress/core/matrix_reuse.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = std::size_t{1} << 16;

}  // namespace

void ReversibleLinear::run_backward_over(ConstMatrixView X, ConstMatrixView dY,
                                         MatrixView<float> dX,
                                         ThreadPool& pool) {
  pool.for_ranges(
      dX.size(), kElementsPerTask, [&](std::size_t begin, std::size_t end) {
        std::ranges::fill(dX.data().subspan(begin, end - begin), 0.0f);
      });
  run_backward(X, dY, dX, pool);
}

void add_matrix(MatrixF& sum, MatrixF d) {
  if (sum.empty()) {
    sum = std::move(d);
    return;
  }
  assert(sum.size() == d.size());
  float* const to = sum.data().data();
  const float* const from = d.data().data();
  for (std::size_t i = 0; i < d.size(); ++i) to[i] += from[i];
}

void OpGradients::add(std::size_t i, MatrixF d) const {
  if (d_in[i] != nullptr) add_matrix(*d_in[i], std::move(d));
}

MatrixView<float> OpGradients::to_add(std::size_t i) const {
  MatrixF* const sum = d_in[i];
  if (sum == nullptr) return {};
  if (sum->empty()) {
    const MatrixF& x = in[i]->rows;
    *sum = pool == nullptr ? MatrixF(x.rows(), x.cols())
                           : zero_matrix(x.rows(), x.cols(), *pool);
  }
  return sum->view();
}

GradientSum OpGradients::to_write(std::size_t i) const {
  MatrixF* const sum = d_in[i];
  if (sum == nullptr) return {};
  const bool is_new = sum->empty();
  if (is_new) *sum = unset_matrix(in[i]->rows.rows(), in[i]->rows.cols());
  return {sum->view(), is_new};
}

}  // namespace llmpress

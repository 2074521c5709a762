#include "compress/model/ops/op_gradients.h"

#include <cassert>

namespace llmpress {

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
  if (sum->empty()) *sum = MatrixF(in[i]->rows.rows(), in[i]->rows.cols());
  return sum->view();
}

}  // namespace llmpress

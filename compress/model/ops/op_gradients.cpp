#include "compress/model/ops/op_gradients.h"

#include <cassert>

namespace llmpress {

void OpGradients::add(std::size_t i, MatrixF d) const {
  MatrixF* const sum = d_in[i];
  if (sum == nullptr) return;
  if (sum->empty()) {
    *sum = std::move(d);
    return;
  }
  assert(sum->size() == d.size());
  float* const to = sum->data().data();
  const float* const from = d.data().data();
  for (std::size_t j = 0; j < d.size(); ++j) to[j] += from[j];
}

MatrixView<float> OpGradients::to_add(std::size_t i) const {
  MatrixF* const sum = d_in[i];
  if (sum == nullptr) return {};
  if (sum->empty()) *sum = MatrixF(in[i]->rows.rows(), in[i]->rows.cols());
  return sum->view();
}

}  // namespace llmpress

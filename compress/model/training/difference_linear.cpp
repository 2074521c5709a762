#include "compress/model/training/difference_linear.h"

#include <algorithm>
#include <utility>

#include "compress/core/linalg.h"

namespace llmpress {
namespace {

constexpr std::size_t kElementsPerTask = std::size_t{1} << 14;

}  // namespace

DifferenceLinear::DifferenceLinear(std::unique_ptr<TrainableLinear> inner,
                                   float log_alpha, float gate_rate)
    : AroundLinear(std::move(inner)), gate_rate_(gate_rate) {
  for (MatrixF* const part : {&n_.w, &n_.log_alpha, &n_.d_w, &n_.d_log_alpha,
                              &n_.z, &n_.slope, &delta_}) {
    *part = MatrixF(inner_->out(), inner_->in());
  }
  std::ranges::fill(n_.log_alpha.data(), log_alpha);
  std::ranges::fill(n_.z.data(), 1.0f);
}

void DifferenceLinear::gates_changed(ThreadPool& pool) {
  pool.for_ranges(delta_.size(), kElementsPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t i = begin; i < end; ++i) {
                      delta_.data()[i] = n_.z.data()[i] * n_.w.data()[i];
                    }
                  });
}

void DifferenceLinear::run(ConstMatrixView X, MatrixView<float> Y,
                           ThreadPool& pool) const {
  inner_->run(X, Y, pool);
  if (X.rows() == 0) return;
  matmul_transposed(X, delta_.view(), Y, pool, 1, Accumulate::kAdd);
}

// With G = dY^T X: dw = G o z, d log_alpha = G o w o dz/d log_alpha.
void DifferenceLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                    MatrixView<float> dX, ThreadPool& pool) {
  if (X.rows() == 0) return;
  MatrixF G(out(), in());
  add_cross_gram(dY, X, 1, G.view(), pool);
  pool.for_ranges(
      G.size(), kElementsPerTask, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const float g = G.data()[i];
          n_.d_w.data()[i] += g * n_.z.data()[i];
          n_.d_log_alpha.data()[i] += g * n_.w.data()[i] * n_.slope.data()[i];
        }
      });
  if (dX.size() == 0) return;
  inner_->run_backward(X, dY, dX, pool);
  matmul(dY, std::as_const(delta_).view(), dX, pool, 1, Accumulate::kAdd);
}

void DifferenceLinear::list_parameters(const std::string& name,
                                       std::vector<Parameter>& to) {
  const std::vector<std::size_t> shape{out(), in()};
  inner_->list_parameters(name, to);
  to.push_back({.name = name + ".difference",
                .shape = shape,
                .value = n_.w.data(),
                .gradient = n_.d_w.data()});
  to.push_back({.name = name + ".log_alpha",
                .shape = shape,
                .value = n_.log_alpha.data(),
                .gradient = n_.d_log_alpha.data(),
                .rate = gate_rate_,
                .decays = false});
}

std::size_t DifferenceLinear::bytes() const {
  return inner_->bytes() + 7 * sizeof(float) * delta_.size();
}

}  // namespace llmpress

#include "compress/model/training/bottleneck_linear.h"

#include <utility>

#include "compress/core/linalg.h"
#include "compress/core/rng.h"
#include "compress/kernels/activations_backward.h"

namespace llmpress {
namespace {

constexpr double kDeviation = 0.02;

Bottleneck zeros(std::size_t size, std::size_t width) {
  return {.down = MatrixF(size, width),
          .down_bias = std::vector<float>(size),
          .up = MatrixF(width, size),
          .up_bias = std::vector<float>(width)};
}

}  // namespace

BottleneckLinear::BottleneckLinear(std::unique_ptr<TrainableLinear> inner,
                                   const BottleneckConfig& config, Isa isa)
    : AroundLinear(std::move(inner)),
      own_(zeros(config.size, inner_->out())),
      d_(zeros(config.size, inner_->out())),
      isa_(isa) {
  own_.activation = config.activation;
  Rng rng(config.seed);
  for (float& x : own_.down.data()) {
    x = static_cast<float>(kDeviation * rng.normal());
  }
}

void BottleneckLinear::run(ConstMatrixView X, MatrixView<float> Y,
                           ThreadPool& pool) const {
  inner_->run(X, Y, pool);
  apply_in_place(own_, Y, isa_, pool);
}

// With Z = D y + d, A = f(Z): dU = dY'^T A, dZ = (dY' U) o f'(Z),
// dD = dZ^T Y, dY = dY' + dZ D.
void BottleneckLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                                    MatrixView<float> dX, ThreadPool& pool) {
  if (X.rows() == 0) return;
  MatrixF Y(X.rows(), out());
  inner_->run(X, Y.view(), pool);
  const MatrixF Z = squeezed(own_, Y.view(), pool);
  MatrixF A = Z;
  activate_in_place(own_.activation, A.view(), pool, isa_);
  add_cross_gram(dY, std::as_const(A).view(), 1, d_.up.view(), pool);
  add_column_sums(dY, d_.up_bias, pool);
  MatrixF dA(Z.rows(), Z.cols()), dZ(Z.rows(), Z.cols());
  matmul(dY, own_.up.view(), dA.view(), pool);
  activation_backward(own_.activation, Z.view(), std::as_const(dA).view(),
                      dZ.view(), pool, isa_);
  const ConstMatrixView dz = std::as_const(dZ).view();
  add_cross_gram(dz, std::as_const(Y).view(), 1, d_.down.view(), pool);
  add_column_sums(dz, d_.down_bias, pool);
  if (dX.size() == 0) return;
  MatrixF d_inner(dY);
  matmul(dz, own_.down.view(), d_inner.view(), pool, 1, Accumulate::kAdd);
  inner_->run_backward(X, std::as_const(d_inner).view(), dX, pool);
}

void BottleneckLinear::list_parameters(const std::string& name,
                                       std::vector<Parameter>& to) {
  const auto matrix = [&](const char* part, MatrixF& value, MatrixF& d) {
    to.push_back({.name = name + part,
                  .shape = {value.rows(), value.cols()},
                  .value = value.data(),
                  .gradient = d.data()});
  };
  const auto vector = [&](const char* part, std::vector<float>& value,
                          std::vector<float>& d) {
    to.push_back({.name = name + part,
                  .shape = {value.size()},
                  .value = value,
                  .gradient = d});
  };
  inner_->list_parameters(name, to);
  matrix(".adapter_down.weight", own_.down, d_.down);
  vector(".adapter_down.bias", own_.down_bias, d_.down_bias);
  matrix(".adapter_up.weight", own_.up, d_.up);
  vector(".adapter_up.bias", own_.up_bias, d_.up_bias);
}

std::size_t BottleneckLinear::bytes() const {
  return inner_->bytes() + 2 * sizeof(float) * own_.numbers();
}

}  // namespace llmpress

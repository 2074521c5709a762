#include "compress/pipeline/training/grid_linear.h"

#include <utility>

#include "compress/core/linalg.h"
#include "compress/model/training/scaled_linear.h"
#include "quantizers/rtn.h"

namespace llmpress {
namespace {

constexpr std::size_t kNumbersPerTask = 1 << 14;

void add(std::span<const float> from, std::span<float> to, ThreadPool& pool) {
  pool.for_ranges(to.size(), kNumbersPerTask,
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t k = begin; k < end; ++k) to[k] += from[k];
                  });
}

}  // namespace

GridLinear::GridLinear(MatrixF W, std::vector<float> bias,
                       const GridLinearConfig& config,
                       const PackedWeight* start, ThreadPool& pool)
    : config_(config),
      W_(std::move(W)),
      W_q_(W_.rows(), W_.cols()),
      d_W_(W_.rows(), W_.cols()),
      bias_(std::move(bias)),
      d_bias_(config.learns_bias ? bias_.size() : 0) {
  if (config.steps == GridSteps::kLearn) {
    grid_.emplace(start != nullptr
                      ? *start
                      : round_to_nearest(W_.view(), config.quantize, pool));
    d_scales_.resize(grid_->scales().size());
    d_zeros_.resize(grid_->zeros().size());
    scale_rate_ = grid_->mean_scale();
  }
  values_changed(pool);
}

ConstMatrixView GridLinear::input_of(ConstMatrixView X, MatrixF& room,
                                     ThreadPool& pool) const {
  if (!config_.rounds_input) return X;
  return rounded_rows(config_.quantize.input, X, {}, room, pool);
}

void GridLinear::run(ConstMatrixView X, MatrixView<float> Y,
                     ThreadPool& pool) const {
  MatrixF room;
  matmul_transposed(input_of(X, room, pool), W_q_.view(), Y, pool);
  add_to_rows(bias_, Y, pool);
}

void GridLinear::run_backward(ConstMatrixView X, ConstMatrixView dY,
                              MatrixView<float> dX, ThreadPool& pool) {
  if (!d_bias_.empty()) add_column_sums(dY, d_bias_, pool);
  MatrixF room, D(out(), in());
  add_cross_gram(dY, input_of(X, room, pool), 1, D.view(), pool);
  add_gradients(std::move(D), pool);
  if (dX.size() == 0) return;
  matmul(dY, W_q_.view(), dX, pool, 1, Accumulate::kAdd);
}

void GridLinear::add_row_gradients(std::span<const std::uint32_t> numbers,
                                   ConstMatrixView d, float factor,
                                   ThreadPool& pool) {
  MatrixF D(out(), in());
  add_to_numbered_rows(numbers, d, factor, D.view(), pool);
  add_gradients(std::move(D), pool);
}

void GridLinear::add_gradients(MatrixF D, ThreadPool& pool) {
  if (grid_) {
    grid_->differentiate(W_.view(), D.view(), d_scales_, d_zeros_, pool);
  }
  add(D.data(), d_W_.data(), pool);
}

void GridLinear::list_parameters(const std::string& name,
                                 std::vector<Parameter>& to) {
  to.push_back({.name = name + ".weight",
                .shape = {out(), in()},
                .value = W_.data(),
                .gradient = d_W_.data()});
  list_bias(name, bias_, d_bias_, to);
  if (!grid_) return;
  const std::vector<std::size_t> shape{grid_->groups().rows,
                                       grid_->groups().columns};
  to.push_back({.name = name + ".weight_scale",
                .shape = shape,
                .value = grid_->scales(),
                .gradient = d_scales_,
                .rate = scale_rate_,
                .decays = false});
  if (d_zeros_.empty()) return;
  to.push_back({.name = name + ".weight_zero_point",
                .shape = shape,
                .value = grid_->zeros(),
                .gradient = d_zeros_,
                .decays = false});
}

void GridLinear::values_changed(ThreadPool& pool) {
  if (grid_) {
    grid_->settle();
    grid_->round_into(W_.view(), W_q_.view(), pool);
  } else {
    W_q_ = dequantize(round_to_nearest(W_.view(), config_.quantize, pool));
  }
}

std::optional<LinearWeights> GridLinear::packed() const {
  ThreadPool alone(1);
  return LinearWeights{
      .weight = grid_ ? grid_->pack(W_.view(), alone)
                      : round_to_nearest(W_.view(), config_.quantize, alone),
      .bias = bias_,
      .input = config_.quantize.input};
}

std::size_t GridLinear::bytes() const {
  return sizeof(float) * (3 * W_.size() + 2 * bias_.size() +
                          4 * d_scales_.size() + 4 * d_zeros_.size());
}

}  // namespace llmpress

#include "distill/losses/cross_entropy.h"

#include <cassert>
#include <cstddef>
#include <numeric>

#include "compress/core/formatted.h"
#include "distill/losses/row_softmax.h"
#include "distill/losses/weighted_rows.h"

namespace llmpress {
namespace {

double row_loss(std::span<const float> z, std::size_t target, double weight,
                double smoothing, std::span<float> g, std::span<float> exps,
                const LossKernels& kernels) {
  const SoftmaxRow p = row_softmax(z, exps, kernels);
  const double uniform = smoothing / static_cast<double>(z.size());
  kernels.add_scaled(p, weight, static_cast<float>(-weight * uniform),
                     g.data());
  g[target] -= static_cast<float>(weight * (1 - smoothing));
  double loss = double{p.max} + p.log_sum - (1 - smoothing) * double{z[target]};
  if (smoothing > 0) {
    loss -= uniform * std::accumulate(z.begin(), z.end(), 0.0);
  }
  return loss;
}

}  // namespace

double cross_entropy_loss(ConstMatrixView Z,
                          std::span<const std::int32_t> targets,
                          std::span<const float> row_weights,
                          float label_smoothing, MatrixView<float> G,
                          ThreadPool& pool, Isa isa) {
  assert(targets.size() == Z.rows() && row_weights.size() == Z.rows());
  assert(G.rows() == Z.rows() && G.cols() == Z.cols());
  if (!(label_smoothing >= 0 && label_smoothing < 1)) {
    fail(ErrorCode::kInvalidArgument,
         "cross-entropy: label smoothing {}, wanted 0 <= it < 1",
         label_smoothing);
  }
  const LossKernels& kernels = loss_kernels(isa);
  return sum_weighted_rows(
      row_weights, Z.cols(), pool, [&](std::size_t r, Scratch& scratch) {
        if (targets[r] < 0) return 0.0;
        const auto target = static_cast<std::size_t>(targets[r]);
        if (target >= Z.cols()) {
          fail(ErrorCode::kInvalidInput,
               "cross-entropy: row {}: target {} of a vocabulary of {}", r,
               target, Z.cols());
        }
        return row_loss(Z.row(r), target, double{row_weights[r]},
                        double{label_smoothing}, G.row(r),
                        scratch.floats(Z.cols()), kernels);
      });
}

}  // namespace llmpress

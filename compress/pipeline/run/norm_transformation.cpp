#include "compress/pipeline/run/norm_transformation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/surgery/block_smoothing.h"
#include "quantizers/scaled_consumers.h"

namespace llmpress {
namespace {

constexpr std::size_t kColumnsPerTask = 16;

}  // namespace

NormTransformation::NormTransformation(NormWeights norm,
                                       std::vector<MatrixF*> scaled)
    : norm_(std::move(norm)),
      scaled_(std::move(scaled)),
      logarithms_(norm_.gain.size()),
      scales_(norm_.gain.size(), 1.0f) {
  for (const MatrixF* const W : scaled_) weights_.push_back(*W);
}

std::vector<float> NormTransformation::gradient(
    std::span<const ConstMatrixView> D, const NormGradients& d,
    ThreadPool& pool) const {
  std::vector<float> sums(scales_.size());
  pool.for_ranges(
      sums.size(), kColumnsPerTask, [&](std::size_t begin, std::size_t end) {
        std::vector<double> sum(end - begin);
        for (std::size_t k = 0; k < D.size(); ++k) {
          for (std::size_t o = 0; o < D[k].rows(); ++o) {
            const auto dw = D[k].row(o);
            const auto w = scaled_[k]->row(o);
            for (std::size_t i = begin; i < end; ++i) {
              sum[i - begin] +=
                  static_cast<double>(dw[i]) * static_cast<double>(w[i]);
            }
          }
        }
        for (std::size_t i = begin; i < end; ++i) {
          const float gain = (norm_.gain[i] + norm_.offset) / scales_[i];
          double total = sum[i - begin] - static_cast<double>(d.gain[i] * gain);
          if (!norm_.bias.empty()) {
            total -=
                static_cast<double>(d.bias[i] * norm_.bias[i] / scales_[i]);
          }
          sums[i] = static_cast<float>(total);
        }
      });
  return sums;
}

void NormTransformation::step(std::span<const ConstMatrixView> D,
                              const NormGradients& d, std::size_t iteration,
                              float rate, ThreadPool& pool) {
  adamw_step({}, iteration + 1, rate, 0, 1, gradient(D, d, pool), logarithms_,
             state_, pool);
  for (std::size_t i = 0; i < scales_.size(); ++i) {
    scales_[i] = std::exp(logarithms_[i]);
  }
  for (std::size_t k = 0; k < scaled_.size(); ++k) {
    // In place: others look at it.
    const MatrixF W = scale_columns(weights_[k].view(), scales_);
    std::ranges::copy(W.data(), scaled_[k]->data().begin());
  }
}

NormWeights NormTransformation::norm() const {
  NormWeights norm = norm_;
  unscale_norm_in_place(norm, scales_);
  return norm;
}

}  // namespace llmpress

// OWL, outlier weighed layerwise sparsity (arXiv:2310.05175, section 3.3):
// blocks whose weights have many outliers by Wanda's score keep more of them.
//
//   score_oi = |W_oi| * sqrt(E[x_i^2])     over all Linears of a block together
//   D_b      = share of scores above M times their mean
//   density_b = 1 - sparsity + 2 lambda (D_b - min D) / (max D - min D) - mean
//
// so that the mean over the blocks is the sparsity asked for and blocks differ
// by at most 2 lambda. D comes from the uncompressed model's activations, for
// all blocks before the first is pruned. Cost: two passes over the weights.
#pragma once

#include <span>
#include <vector>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

struct OwlLinear {
  ConstMatrixView W{};                   // [out, in]
  std::span<const float> square_mean{};  // E[x^2] [in]
};

// D of one block, in [0, 1).
double outlier_ratio(std::span<const OwlLinear> linears, double threshold,
                     ThreadPool& pool);

// The sparsity of each block. Equal ratios give the same sparsity to all.
// Throws Error(kInvalidArgument) unless 2 lambda <= sparsity < 1 - 2 lambda,
// and Error(kNumeric) for a ratio that is not a number.
std::vector<double> owl_sparsities(std::span<const double> outlier_ratios,
                                   double sparsity, double lambda);

}  // namespace llmpress

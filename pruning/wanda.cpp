#include "pruning/wanda.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "pruning/mask.h"

namespace llmpress {
namespace {

constexpr std::size_t kGrain = 8;  // rows a thread takes at a time

// The authors' tolerances of the bisection.
constexpr double kSparsityTolerance = 0.001, kAlphaTolerance = 0.001;

MatrixF wanda_scores(const PruneRequest& request) {
  std::vector<float> norms(request.W.cols());
  for (std::size_t i = 0; i < norms.size(); ++i) {
    norms[i] = std::sqrt(request.stats->square_mean[i]);
  }
  MatrixF scores(request.W.rows(), request.W.cols());
  request.pool->for_ranges(scores.rows(), kGrain,
                           [&](std::size_t begin, std::size_t end) {
                             for (std::size_t o = begin; o < end; ++o) {
                               const auto w = request.W.row(o);
                               const auto score = scores.row(o);
                               for (std::size_t i = 0; i < w.size(); ++i) {
                                 score[i] = std::abs(w[i]) * norms[i];
                               }
                             }
                           });
  return scores;
}

// How many of a row's ascending scores sum to at most alpha of their total.
std::size_t count_below(std::span<const double> sums, double alpha) {
  if (sums.empty()) return 0;
  const auto end = std::ranges::upper_bound(sums, alpha * sums.back());
  return static_cast<std::size_t>(end - sums.begin());
}

// Weights that the variant removes from each row.
std::vector<std::size_t> variant_counts(const MatrixF& scores, double sparsity,
                                        ThreadPool& pool) {
  Matrix<double> sums(scores.rows(), scores.cols());
  pool.for_ranges(scores.rows(), kGrain,
                  [&](std::size_t begin, std::size_t end) {
                    std::vector<float> sorted(scores.cols());
                    for (std::size_t o = begin; o < end; ++o) {
                      std::ranges::copy(scores.row(o), sorted.begin());
                      std::ranges::sort(sorted);
                      double sum = 0;
                      for (std::size_t i = 0; i < sorted.size(); ++i) {
                        sums(o, i) = sum += static_cast<double>(sorted[i]);
                      }
                    }
                  });
  std::vector<std::size_t> counts(scores.rows());
  double low = 0, high = 1;
  while (high - low >= kAlphaTolerance) {
    const double alpha = (low + high) / 2;
    std::size_t removed = 0;
    for (std::size_t o = 0; o < counts.size(); ++o) {
      removed += counts[o] = count_below(sums.row(o), alpha);
    }
    const double reached =
        static_cast<double>(removed) / static_cast<double>(scores.size());
    if (std::abs(reached - sparsity) <= kSparsityTolerance) break;
    (reached > sparsity ? high : low) = alpha;
  }
  return counts;
}

}  // namespace

PruneResult prune_wanda(const PruneRequest& request) {
  const PruneConfig& config = *request.config;
  const MatrixF scores = wanda_scores(request);
  Matrix<std::uint8_t> mask(scores.rows(), scores.cols());
  std::vector<std::size_t> counts(
      scores.rows(),
      static_cast<std::size_t>(static_cast<double>(scores.cols()) *
                               request.sparsity));
  if (config.wanda_variant && !config.patterned() && request.sparsity > 0) {
    counts = variant_counts(scores, request.sparsity, *request.pool);
  }
  request.pool->for_ranges(
      scores.rows(), kGrain, [&](std::size_t begin, std::size_t end) {
        for (std::size_t o = begin; o < end; ++o) {
          if (config.patterned()) {
            mask_pattern(scores.row(o), config.keep, config.of, mask.row(o));
          } else {
            mask_lowest(scores.row(o), counts[o], mask.row(o));
          }
        }
      });
  return apply_mask(request, std::move(mask));
}

}  // namespace llmpress

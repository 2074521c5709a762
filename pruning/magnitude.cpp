#include "pruning/magnitude.h"

#include <cmath>

#include "pruning/mask.h"

namespace llmpress {

PruneResult prune_magnitude(const PruneRequest& request) {
  const PruneConfig& config = *request.config;
  const std::size_t out = request.W.rows(), in = request.W.cols();
  MatrixF scores(out, in);
  Matrix<std::uint8_t> mask(out, in);
  request.pool->for_ranges(out, 16, [&](std::size_t begin, std::size_t end) {
    for (std::size_t o = begin; o < end; ++o) {
      const auto w = request.W.row(o);
      const auto score = scores.row(o);
      for (std::size_t i = 0; i < in; ++i) score[i] = std::abs(w[i]);
      if (config.patterned()) {
        mask_pattern(score, config.keep, config.of, mask.row(o));
      }
    }
  });
  if (!config.patterned()) {
    mask_lowest(scores.view(),
                rank_threshold_count(scores.size(), request.sparsity),
                mask.view(), *request.pool);
  }
  return apply_mask(request, std::move(mask));
}

}  // namespace llmpress

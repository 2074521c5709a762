#include "compress/core/moment_sum.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace llmpress {

void MomentSum::find(ConstMatrixView X, ConstMatrixView Y, float alpha,
                     const GramPanel& panel, MatrixView<float> G,
                     ThreadPool& pool) {
  if (shape_ == GramShape::kSymmetric) {
    batch_gram_panel(X, alpha, panel, G, pool);
  } else {
    batch_cross_gram_panel(X, Y, alpha, panel, G, pool);
  }
}

void MomentSum::add(ConstMatrixView X, ConstMatrixView Y, float alpha,
                    std::span<const std::size_t> rows, ThreadPool& pool) {
  if (!ranks_.is_spread()) {
    if (shape_ == GramShape::kSymmetric) {
      add_batch_gram(X, alpha, sum_.view(), pool);
    } else {
      add_batch_cross_gram(X, Y, alpha, sum_.view(), pool);
    }
    return;
  }
  const std::size_t panels = gram_panels(sum_.rows());
  for (std::size_t first = 0; first < panels; first += ranks_.size()) {
    add_panels(first, X, Y, alpha, rows, pool);
  }
}

// Panels from `first` on, one for each rank.
void MomentSum::add_panels(std::size_t first, ConstMatrixView X,
                           ConstMatrixView Y, float alpha,
                           std::span<const std::size_t> rows,
                           ThreadPool& pool) {
  const std::size_t ranks = ranks_.size(), own = ranks_.rank();
  const std::size_t panels = gram_panels(sum_.rows());
  std::vector<MatrixF> made(ranks), got(ranks);
  std::vector<std::span<const std::byte>> to(ranks);
  std::vector<std::span<std::byte>> from(ranks);
  for (std::size_t r = 0; r < ranks && first + r < panels; ++r) {
    if (rows[own] == 0) break;
    const GramPanel range = panel(first + r);
    made[r] = MatrixF(range.count, range.cols);
    find(X, Y, alpha, range, made[r].view(), pool);
    if (r != own) to[r] = std::as_bytes(std::as_const(made[r]).data());
  }
  const bool has_panel = first + own < panels;
  const GramPanel mine = has_panel ? panel(first + own) : GramPanel{};
  for (std::size_t r = 0; r < ranks && has_panel; ++r) {
    if (rows[r] == 0 || r == own) continue;
    got[r] = MatrixF(mine.count, mine.cols);
    from[r] = std::as_writable_bytes(got[r].data());
  }
  ranks_.exchange(to, from);
  for (std::size_t r = 0; r < ranks && has_panel; ++r) {
    if (rows[r] != 0) add_panel(mine, r == own ? made[r] : got[r]);
  }
}

void MomentSum::add_panel(const GramPanel& panel, const MatrixF& G) {
  for (std::size_t r = 0; r < panel.count; ++r) {
    const auto g = G.row(r);
    const auto sum = sum_.row(panel.first + r);
    for (std::size_t c = 0; c < panel.cols; ++c) sum[c] += g[c];
  }
}

void MomentSum::share_panel(std::size_t index) {
  const GramPanel range = panel(index);
  MatrixF G(range.count, range.cols);
  for (std::size_t r = 0; r < range.count && ranks_.owns(index); ++r) {
    std::ranges::copy(sum_.row(range.first + r).first(range.cols),
                      G.row(r).begin());
  }
  ranks_.broadcast(G.data(), ranks_.owner(index));
  for (std::size_t r = 0; r < range.count; ++r) {
    std::ranges::copy(std::as_const(G).row(r),
                      sum_.row(range.first + r).begin());
  }
}

MatrixF MomentSum::finish(ThreadPool* pool) {
  if (pool == nullptr) return std::move(sum_);
  for (std::size_t p = 0; ranks_.is_spread() && p < gram_panels(sum_.rows());
       ++p) {
    share_panel(p);
  }
  if (shape_ == GramShape::kSymmetric) {
    mirror_lower_in_place(sum_.view(), *pool);
  }
  return std::move(sum_);
}

}  // namespace llmpress

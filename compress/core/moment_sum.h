// The sum of alpha X_b^T Y_b over batches (batch_gram.h) that lie on several
// ranks, in the order of the batches.
//
// Batches come in rounds, one of each rank. Every rank finds its G_b panel by
// panel and sends panel p to rank p mod ranks, which adds what came in rank
// order, so that each holds its panels of the sum; at the end they go to all.
// One process adds tile by tile and sends nothing. A round sends
// (ranks - 1) / ranks of a matrix from each rank, half of it if it is
// symmetric; the end as much.
#pragma once

#include <cstddef>
#include <span>

#include "compress/core/batch_gram.h"
#include "compress/core/matrix.h"
#include "compress/core/parallel.h"
#include "compress/core/ranks.h"

namespace llmpress {

class MomentSum {
 public:
  MomentSum() = default;  // of no columns
  MomentSum(std::size_t n, GramShape shape, Ranks ranks)
      : shape_(shape), ranks_(std::move(ranks)), sum_(n, n) {}

  // X and Y [rows[own rank], n], the same one where the sum is symmetric;
  // `rows` of every rank's batch. Collective.
  void add(ConstMatrixView X, ConstMatrixView Y, float alpha,
           std::span<const std::size_t> rows, ThreadPool& pool);

  // The whole sum, on every rank. Collective. Without a pool: nothing was added.
  MatrixF finish(ThreadPool* pool);

 private:
  void find(ConstMatrixView X, ConstMatrixView Y, float alpha,
            const GramPanel& panel, MatrixView<float> G, ThreadPool& pool);
  void add_panels(std::size_t first, ConstMatrixView X, ConstMatrixView Y,
                  float alpha, std::span<const std::size_t> rows,
                  ThreadPool& pool);
  void add_panel(const GramPanel& panel, const MatrixF& G);
  void share_panel(std::size_t index);
  GramPanel panel(std::size_t index) const {
    return gram_panel(sum_.rows(), index, shape_);
  }

  GramShape shape_ = GramShape::kSymmetric;
  Ranks ranks_{};
  MatrixF sum_{};
};

}  // namespace llmpress

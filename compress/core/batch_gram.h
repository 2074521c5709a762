// Second moments as sums over batches of rows:
//
//   C += G_b,  G_b = alpha X_b^T Y_b, found from zero
//
// so that the sum is the same bytes wherever a G_b is found, in this process or
// in another, as long as the batches are added in order. Products are cut into
// tiles of fixed size (linalg.h). Where G_b goes to another process it goes in
// panels of its rows, and the full matrix stands nowhere twice.
//
// X^T X is symmetric: only C's lower triangle is added to, and mirrored at the
// end.
#pragma once

#include <cstddef>

#include "compress/core/matrix.h"
#include "compress/core/parallel.h"

namespace llmpress {

// C [n, n] += alpha X^T X in the lower triangle, for X [rows, n].
void add_batch_gram(ConstMatrixView X, float alpha, MatrixView<float> C,
                    ThreadPool& pool);
// C [n, n] += alpha X^T Y for X and Y [rows, n].
void add_batch_cross_gram(ConstMatrixView X, ConstMatrixView Y, float alpha,
                          MatrixView<float> C, ThreadPool& pool);
void mirror_lower_in_place(MatrixView<float> C, ThreadPool& pool);

// Rows [first, first + count) of an [n, n] matrix, of which a panel holds the
// first `cols` columns: up to the diagonal of a symmetric one.
struct GramPanel {
  std::size_t first = 0, count = 0, cols = 0;
  std::size_t size() const { return count * cols; }
};
enum class GramShape { kSymmetric, kFull };
std::size_t gram_panels(std::size_t n);
GramPanel gram_panel(std::size_t n, std::size_t index, GramShape shape);

// The panel of G_b, G [panel.count, panel.cols]; what add_batch_gram() would
// add. Above the diagonal of a symmetric one zeros may stand.
void batch_gram_panel(ConstMatrixView X, float alpha, const GramPanel& panel,
                      MatrixView<float> G, ThreadPool& pool);
void batch_cross_gram_panel(ConstMatrixView X, ConstMatrixView Y, float alpha,
                            const GramPanel& panel, MatrixView<float> G,
                            ThreadPool& pool);

}  // namespace llmpress

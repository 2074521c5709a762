#include "compress/core/batch_gram.h"

#include <gtest/gtest.h>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF A(rows, cols);
  for (float& x : A.data()) x = static_cast<float>(rng.normal());
  return A;
}

double product(const MatrixF& X, const MatrixF& Y, std::size_t i,
               std::size_t j) {
  double sum = 0;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    sum += static_cast<double>(X(t, i)) * static_cast<double>(Y(t, j));
  }
  return sum;
}

TEST(BatchGram, AddsTheProductsOfColumns) {
  ThreadPool pool(2);
  for (const std::size_t n : {1u, 17u, 130u, 600u}) {
    const MatrixF X = random_matrix(40, n, n), Y = random_matrix(40, n, n + 1);
    MatrixF S(n, n), R(n, n);
    for (float& x : S.data()) x = 3;
    for (float& x : R.data()) x = -1;
    add_batch_gram(X.view(), 0.5f, S.view(), pool);
    mirror_lower_in_place(S.view(), pool);
    add_batch_cross_gram(X.view(), Y.view(), 2, R.view(), pool);
    // 40 products of normal numbers: far below 1e-4 of rounding.
    for (std::size_t i = 0; i < n; i += 7) {
      for (std::size_t j = 0; j < n; j += 5) {
        EXPECT_NEAR(S(i, j), 3 + 0.5 * product(X, X, i, j), 1e-4);
        EXPECT_NEAR(R(i, j), -1 + 2 * product(X, Y, i, j), 1e-4);
      }
    }
  }
}

TEST(BatchGram, PanelsAreTheBytesThatAreAdded) {
  ThreadPool pool(2);
  for (const std::size_t n : {1u, 64u, 512u, 513u, 1000u, 1100u}) {
    for (const std::size_t rows : {1u, 3u, 200u}) {
      const MatrixF X = random_matrix(rows, n, n),
                    Y = random_matrix(rows, n, n + 1);
      MatrixF S(n, n), R(n, n);
      add_batch_gram(X.view(), 0.25f, S.view(), pool);
      add_batch_cross_gram(X.view(), Y.view(), 0.25f, R.view(), pool);
      for (std::size_t p = 0; p < gram_panels(n); ++p) {
        const GramPanel half = gram_panel(n, p, GramShape::kSymmetric);
        const GramPanel full = gram_panel(n, p, GramShape::kFull);
        MatrixF G(half.count, half.cols), F(full.count, full.cols);
        batch_gram_panel(X.view(), 0.25f, half, G.view(), pool);
        batch_cross_gram_panel(X.view(), Y.view(), 0.25f, full, F.view(), pool);
        for (std::size_t r = 0; r < half.count; ++r) {
          const std::size_t i = half.first + r;
          for (std::size_t c = 0; c <= i; ++c) ASSERT_EQ(G(r, c), S(i, c));
          for (std::size_t c = 0; c < n; ++c) ASSERT_EQ(F(r, c), R(i, c));
        }
      }
    }
  }
}

TEST(BatchGram, EachBatchIsFoundFromZero) {
  // Floats from 2^24 on are 2 apart: the second batch, 10 in all, would be lost
  // if a product added it by some hundred rows at a time.
  ThreadPool pool(1);
  const MatrixF large({4096}, 1, 1),
      small(std::vector<float>(4000, 0.05f), 4000, 1);
  MatrixF S(1, 1);
  add_batch_gram(large.view(), 1, S.view(), pool);
  add_batch_gram(small.view(), 1, S.view(), pool);
  EXPECT_EQ(S(0, 0), 16777226.0f);
}

}  // namespace
}  // namespace llmpress

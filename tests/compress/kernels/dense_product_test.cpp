#include "compress/kernels/dense_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  MatrixF X(rows, cols);
  Rng rng(seed);
  for (float& x : X.data()) x = static_cast<float>(2 * rng.uniform() - 1);
  return X;
}

MatrixF transposed(const MatrixF& X) {
  MatrixF T(X.cols(), X.rows());
  for (std::size_t r = 0; r < X.rows(); ++r) {
    for (std::size_t c = 0; c < X.cols(); ++c) T(c, r) = X(r, c);
  }
  return T;
}

struct Shape {
  std::size_t m, n, k;
};

// Tiles of every size, ragged panels, several stretches of the sum, several
// parts of C.
const std::vector<Shape> kShapes = {
    {1, 1, 1},       {13, 33, 5},    {11, 31, 257}, {97, 64, 256},
    {64, 1030, 300}, {12, 32, 2600}, {5, 7, 10000}, {4100, 40, 16}};

class DenseProduct : public testing::TestWithParam<Isa> {};

// Of a sum of k products of numbers below 1 the error is below k^2 roundings.
void expect_product(const MatrixF& A, const MatrixF& B, const MatrixF& before,
                    const MatrixF& C) {
  const auto k = static_cast<double>(A.cols());
  const double tolerance = 6e-8 * k * std::max(4.0, std::sqrt(k));
  for (std::size_t i = 0; i < C.rows(); ++i) {
    for (std::size_t j = 0; j < C.cols(); ++j) {
      double sum = before.empty() ? 0 : double{before(i, j)};
      for (std::size_t x = 0; x < A.cols(); ++x) {
        sum += double{A(i, x)} * double{B(x, j)};
      }
      ASSERT_NEAR(C(i, j), sum, tolerance) << i << ", " << j;
    }
  }
}

TEST_P(DenseProduct, IsTheSumOfProductsInEveryForm) {
  ThreadPool pool(2);
  for (const Shape& s : kShapes) {
    SCOPED_TRACE(testing::Message() << s.m << " " << s.n << " " << s.k);
    const MatrixF A = random_matrix(s.m, s.k, 1),
                  B = random_matrix(s.k, s.n, 2);
    const MatrixF before = random_matrix(s.m, s.n, 3);
    MatrixF C = random_matrix(s.m, s.n, 4);
    dense_product_transposed(A.view(), transposed(B).view(), C.view(),
                             Accumulate::kOverwrite, pool, GetParam());
    expect_product(A, B, {}, C);
    C = before;
    dense_product(A.view(), B.view(), C.view(), Accumulate::kAdd, pool,
                  GetParam());
    expect_product(A, B, before, C);
    C = before;
    add_dense_cross_product(transposed(A).view(), B.view(), C.view(), pool,
                            GetParam());
    expect_product(A, B, before, C);
  }
}

TEST_P(DenseProduct, HasTheSameBitsAtAnyNumberOfThreadsAndRows) {
  ThreadPool one(1), three(3);
  const MatrixF A = random_matrix(101, 700, 1), B = random_matrix(90, 700, 2);
  MatrixF C(101, 90), again(101, 90), part(17, 90);
  const auto product = [&](ConstMatrixView X, MatrixF& Y, ThreadPool& pool) {
    dense_product_transposed(X, B.view(), Y.view(), Accumulate::kOverwrite,
                             pool, GetParam());
  };
  product(A.view(), C, one);
  product(A.view(), again, three);
  EXPECT_TRUE(std::ranges::equal(C.data(), again.data()));
  if (GetParam() == Isa::kScalar) return;  // linalg.h promises threads alone
  product(A.view().rows_slice(40, 17), part, three);
  EXPECT_TRUE(std::ranges::equal(
      std::as_const(C).view().rows_slice(40, 17).data(), part.data()));
}

TEST_P(DenseProduct, ReadsNothingOfAnOutputThatItOverwrites) {
  ThreadPool pool(2);
  const MatrixF A = random_matrix(30, 40, 1), B = random_matrix(40, 35, 2);
  MatrixF C(
      std::vector<float>(30 * 35, std::numeric_limits<float>::quiet_NaN()), 30,
      35);
  dense_product(A.view(), B.view(), C.view(), Accumulate::kOverwrite, pool,
                GetParam());
  expect_product(A, B, {}, C);
}

TEST_P(DenseProduct, OfNoStepsIsZero) {
  ThreadPool pool(1);
  MatrixF C = random_matrix(3, 4, 1);
  dense_product(MatrixF(3, 0).view(), MatrixF(0, 4).view(), C.view(),
                Accumulate::kOverwrite, pool, GetParam());
  for (const float c : C.data()) EXPECT_EQ(c, 0);
}

INSTANTIATE_TEST_SUITE_P(Isas, DenseProduct,
                         testing::ValuesIn(available_isas()));

TEST(DenseProductBits, HasTheSameBitsWithEveryVectorInstructionSet) {
  ThreadPool pool(2);
  const MatrixF A = random_matrix(50, 600, 1), B = random_matrix(600, 70, 2);
  std::vector<MatrixF> results;
  for (const Isa isa : available_isas()) {
    if (isa == Isa::kScalar) continue;
    MatrixF C(50, 70);
    dense_product(A.view(), B.view(), C.view(), Accumulate::kOverwrite, pool,
                  isa);
    results.push_back(std::move(C));
  }
  for (const MatrixF& C : results) {
    EXPECT_TRUE(std::ranges::equal(C.data(), results.front().data()));
  }
}

}  // namespace
}  // namespace llmpress

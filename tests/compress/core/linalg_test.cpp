#include "compress/core/linalg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <tuple>

#include "compress/core/rng.h"
#include "tests/compress/core/thread_ranks.h"

namespace llmpress {
namespace {

constexpr double kUnit = 0x1p-24;  // rounding error of one float operation
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF A(rows, cols);
  for (float& x : A.data()) x = static_cast<float>(rng.normal());
  return A;
}

MatrixF filled(std::size_t rows, std::size_t cols, float value) {
  MatrixF A(rows, cols);
  std::fill(A.data().begin(), A.data().end(), value);
  return A;
}

// Symmetric, eigenvalues between 1 and about 1 + (1 + sqrt(n / rows))^2.
MatrixF random_spd(std::size_t n, std::uint64_t seed) {
  const MatrixF X = random_matrix(2 * n, n, seed);
  MatrixF A(n, n);
  ThreadPool pool(2);
  add_gram(X.view(), 1.0f / static_cast<float>(2 * n), A.view(), pool);
  for (std::size_t i = 0; i < n; ++i) A(i, i) += 1.0f;
  return A;
}

std::vector<float> copy_of(const MatrixF& A) {
  return {A.data().begin(), A.data().end()};
}

MatrixF transpose(ConstMatrixView A) {
  MatrixF T(A.cols(), A.rows());
  for (std::size_t i = 0; i < A.rows(); ++i) {
    for (std::size_t j = 0; j < A.cols(); ++j) T(j, i) = A(i, j);
  }
  return T;
}

// Checks C = before + alpha A B against double sums. The error of a float sum
// of k products in any order is below (k + 1) units of the sum of magnitudes
// (Higham, Accuracy and Stability, section 3.1), and 2 more for alpha and C.
void expect_product(ConstMatrixView A, ConstMatrixView B, double alpha,
                    double before, const MatrixF& C) {
  ASSERT_EQ(C.rows(), A.rows());
  ASSERT_EQ(C.cols(), B.cols());
  for (std::size_t i = 0; i < C.rows(); ++i) {
    for (std::size_t j = 0; j < C.cols(); ++j) {
      double sum = 0, magnitude = 0;
      for (std::size_t t = 0; t < A.cols(); ++t) {
        const double term = double{A(i, t)} * double{B(t, j)};
        sum += term;
        magnitude += std::abs(term);
      }
      const double wanted = before + alpha * sum;
      const double bound = static_cast<double>(A.cols() + 3) * kUnit *
                           (std::abs(before) + std::abs(alpha) * magnitude);
      ASSERT_NEAR(C(i, j), wanted, bound) << i << ", " << j;
    }
  }
}

using Shape = std::tuple<std::size_t, std::size_t, std::size_t>;  // m, n, k
class Products : public testing::TestWithParam<Shape> {
 protected:
  std::size_t m = std::get<0>(GetParam()), n = std::get<1>(GetParam()),
              k = std::get<2>(GetParam());
  MatrixF A = random_matrix(m, k, 1), B = random_matrix(k, n, 2);
  ThreadPool pool{2};
};

TEST_P(Products, AreTheDefinedSums) {
  MatrixF C = filled(m, n, kNan);  // overwritten, whatever it held
  matmul(A.view(), B.view(), C.view(), pool, -0.5f);
  expect_product(A.view(), B.view(), -0.5, 0, C);
  C = filled(m, n, 3.0f);
  matmul(A.view(), B.view(), C.view(), pool, 2.0f, Accumulate::kAdd);
  expect_product(A.view(), B.view(), 2, 3, C);
}

TEST_P(Products, WithTheSecondFactorTransposedAreTheDefinedSums) {
  const MatrixF Bt = transpose(B.view());
  MatrixF C = filled(m, n, kNan);
  matmul_transposed(A.view(), Bt.view(), C.view(), pool, -0.5f);
  expect_product(A.view(), B.view(), -0.5, 0, C);
  C = filled(m, n, 3.0f);
  matmul_transposed(A.view(), Bt.view(), C.view(), pool, 2.0f,
                    Accumulate::kAdd);
  expect_product(A.view(), B.view(), 2, 3, C);
}

TEST_P(Products, OfRowsAddToGramMatrices) {
  const MatrixF X = transpose(A.view());  // [k, m]
  MatrixF H = filled(m, m, 1.0f);
  add_gram(X.view(), 0.25f, H.view(), pool);
  expect_product(A.view(), X.view(), 0.25, 1, H);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < i; ++j) ASSERT_EQ(H(i, j), H(j, i));
  }
  MatrixF G = filled(m, n, -1.0f);
  add_cross_gram(X.view(), B.view(), 0.25f, G.view(), pool);
  expect_product(A.view(), B.view(), 0.25, -1, G);
}

TEST_P(Products, OfTailsLeaveTheColumnsBeforeThemAlone) {
  for (const std::size_t c0 : {std::size_t{0}, n / 3, n - 1, n}) {
    MatrixF C = filled(m, n, 2.0f);
    matmul_tail(A.view(), B.view(), c0, C.view(), pool, -1.0f);
    MatrixF whole = filled(m, n, 2.0f);
    matmul(A.view(), B.view(), whole.view(), pool, -1.0f, Accumulate::kAdd);
    MatrixF tail(m, n - c0), B_tail(k, n - c0);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < c0; ++j) ASSERT_EQ(C(i, j), 2.0f);
      for (std::size_t j = c0; j < n; ++j) tail(i, j - c0) = C(i, j);
    }
    for (std::size_t t = 0; t < k; ++t) {
      for (std::size_t j = c0; j < n; ++j) B_tail(t, j - c0) = B(t, j);
    }
    expect_product(A.view(), B_tail.view(), -1, 2, tail);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Products,
    testing::Values(Shape{1, 1, 1}, Shape{1, 37, 5}, Shape{1, 1031, 257},
                    Shape{2, 3, 0}, Shape{1, 3, 0}, Shape{3, 1, 64},
                    Shape{17, 33, 65}, Shape{127, 131, 137}, Shape{64, 64, 64},
                    Shape{521, 600, 31}, Shape{37, 1100, 101}));

// Everything that linalg offers, as bytes, on one pool.
std::vector<std::vector<float>> all_results(std::size_t n, ThreadPool& pool) {
  const MatrixF A = random_matrix(n, n + 3, 5), B = random_matrix(n, n + 3, 6);
  const MatrixF X = random_matrix(2 * n + 1, n, 7), S = random_spd(n, 8);
  std::vector<std::vector<float>> results;
  MatrixF C(n, n);
  matmul_transposed(A.view(), B.view(), C.view(), pool);
  results.push_back(copy_of(C));
  MatrixF row(1, n);
  matmul_transposed(A.view().rows_slice(0, 1), B.view(), row.view(), pool);
  results.push_back(copy_of(row));
  MatrixF D(n, n + 3);
  matmul(S.view(), A.view(), D.view(), pool);
  results.push_back(copy_of(D));
  matmul_tail(S.view(), A.view(), n / 2, D.view(), pool, -0.5f);
  results.push_back(copy_of(D));
  MatrixF H(n, n);
  add_gram(X.view(), 0.5f, H.view(), pool);
  add_gram(X.view(), 0.25f, H.view(), pool);
  results.push_back(copy_of(H));
  MatrixF G(n, n + 3);
  add_cross_gram(S.view(), A.view(), 0.5f, G.view(), pool);
  results.push_back(copy_of(G));
  results.push_back(copy_of(cholesky_lower(S.view(), pool).value()));
  results.push_back(copy_of(inverse_cholesky_upper(S, pool).value()));
  results.push_back(copy_of(solve_spd(S.view(), A.view(), pool).value()));
  return results;
}

TEST(Linalg, GivesTheSameBytesAtAnyThreadCount) {
  for (const std::size_t n : {5u, 127u, 257u, 521u, 1031u}) {
    ThreadPool one(1);
    const auto wanted = all_results(n, one);
    for (const std::size_t threads : {2u, 5u}) {
      ThreadPool pool(threads);
      const auto found = all_results(n, pool);
      for (std::size_t r = 0; r < wanted.size(); ++r) {
        EXPECT_EQ(found[r], wanted[r])
            << "result " << r << ", n " << n << ", threads " << threads;
      }
    }
  }
}

TEST(Linalg, RanksFindTheInverseOfOneRank) {
  for (const std::size_t n : {5u, 257u, 1031u, 1600u}) {
    const MatrixF S = random_spd(n, 3);
    ThreadPool one(1);
    const auto alone = copy_of(inverse_cholesky_upper(S, one).value());
    for (const std::size_t size : {2u, 3u, 4u}) {
      run_on_ranks(size, [&](const Ranks& ranks) {
        ThreadPool pool(1);
        const auto U = inverse_cholesky_upper(S, pool, ranks);
        ASSERT_TRUE(U.has_value());
        EXPECT_EQ(copy_of(*U), alone) << n << " on " << size;
        // Two triangles, with the squares on their diagonals, to all others.
        const std::uint64_t sent = ranks.traffic().sent;
        double all = 0;
        for (const auto& bytes : ranks.gather(bytes_of(std::span(&sent, 1)))) {
          all += static_cast<double>(values_of<std::uint64_t>(bytes).front());
        }
        const auto side = static_cast<double>(n);
        const double wanted =
            4 * (side * side + 256 * side) * static_cast<double>(size - 1);
        if (n > 256) {
          EXPECT_NEAR(all, wanted, 0.1 * wanted);
        }
      });
    }
  }
}

TEST(Linalg, RanksAgreeThatAMatrixHasNoInverse) {
  MatrixF S = random_spd(700, 3);
  S(600, 600) = -1;
  run_on_ranks(3, [&](const Ranks& ranks) {
    ThreadPool pool(1);
    EXPECT_FALSE(inverse_cholesky_upper(S, pool, ranks).has_value());
  });
}

TEST(Linalg, RowsOfATailDoNotDependOnTheOthers) {
  const MatrixF A = random_matrix(700, 128, 1), B = random_matrix(128, 900, 2);
  ThreadPool pool(2);
  MatrixF whole(700, 900);
  matmul_tail(A.view(), B.view(), 130, whole.view(), pool, -1.0f);
  const std::size_t first = kRowsOfTail, count = 700 - kRowsOfTail;
  MatrixF part(count, 900);
  matmul_tail(A.view().rows_slice(first, count), B.view(), 130, part.view(),
              pool, -1.0f);
  EXPECT_EQ(copy_of(part),
            copy_of(MatrixF(whole.view().rows_slice(first, count))));
}

class Factorizations : public testing::TestWithParam<std::size_t> {
 protected:
  std::size_t n = GetParam();
  MatrixF A = random_spd(n, 11);
  ThreadPool pool{2};
};

// |A - L L^T| <= (n + 1) units of |L| |L^T| (Higham, Theorem 10.3), here with
// one more for good measure of the second order.
TEST_P(Factorizations, CholeskyFactorMultipliesBackToTheMatrix) {
  MatrixF lower_only = A;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i + 1; j < n; ++j) lower_only(i, j) = kNan;
  }
  const auto L = cholesky_lower(lower_only.view(), pool);
  ASSERT_TRUE(L.has_value());
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i + 1; j < n; ++j) ASSERT_EQ((*L)(i, j), 0.0f);
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0, magnitude = 0;
      for (std::size_t t = 0; t <= j; ++t) {
        const double term = double{(*L)(i, t)} * double{(*L)(j, t)};
        sum += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(sum, A(i, j), static_cast<double>(n + 2) * kUnit * magnitude)
          << i << ", " << j;
    }
  }
}

// With U = R^-1 and A = R R^T: U A U^T = I. Both steps are backward stable, so
// the residual is below a few n units times the condition of A, here <= 4.
TEST_P(Factorizations, InverseFactorTurnsTheMatrixIntoTheIdentity) {
  const auto U = inverse_cholesky_upper(A, pool);
  ASSERT_TRUE(U.has_value());
  MatrixF UA(n, n), UAUt(n, n);
  matmul(U->view(), A.view(), UA.view(), pool);
  matmul_transposed(UA.view(), U->view(), UAUt.view(), pool);
  const double bound = 4.0 * 4.0 * static_cast<double>(n + 2) * kUnit;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (j < i) {
        ASSERT_EQ((*U)(i, j), 0.0f);
      }
      ASSERT_NEAR(UAUt(i, j), i == j ? 1 : 0, bound) << i << ", " << j;
    }
    ASSERT_GT((*U)(i, i), 0.0f);
  }
}

TEST_P(Factorizations, SolutionsSolveTheirSystem) {
  const MatrixF B = random_matrix(n, 70, 12);
  const auto X = solve_spd(A.view(), B.view(), pool);
  ASSERT_TRUE(X.has_value());
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < B.cols(); ++j) {
      double sum = 0, magnitude = 0;
      for (std::size_t t = 0; t < n; ++t) {
        const double term = double{A(i, t)} * double{(*X)(t, j)};
        sum += term;
        magnitude += std::abs(term);
      }
      // Residual within (3n + 1) units of |L||L^T||x| (Higham, Theorem 10.4);
      // |L||L^T| is at most n^(1/2) larger than |A| for such matrices.
      const double units = (3.0 * static_cast<double>(n) + 1) *
                           std::sqrt(static_cast<double>(n));
      ASSERT_NEAR(sum, B(i, j), units * kUnit * (magnitude + 1)) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Factorizations,
                         testing::Values(1, 2, 17, 128, 255, 256, 257, 521,
                                         769));

TEST(Linalg, FactorsMatchAHandComputedCase) {
  ThreadPool pool(1);
  const MatrixF A({4, 2, 2, 3}, 2, 2);
  const MatrixF L = cholesky_lower(A.view(), pool).value();
  EXPECT_FLOAT_EQ(L(0, 0), 2);
  EXPECT_FLOAT_EQ(L(1, 0), 1);
  EXPECT_FLOAT_EQ(L(1, 1), std::sqrt(2.0f));
  // A^-1 = [3 -2; -2 4] / 8 = U^T U.
  const MatrixF U = inverse_cholesky_upper(A, pool).value();
  EXPECT_FLOAT_EQ(U(0, 0), std::sqrt(3.0f / 8));
  EXPECT_FLOAT_EQ(U(0, 1), -0.25f / std::sqrt(3.0f / 8));
  EXPECT_FLOAT_EQ(U(1, 1), std::sqrt(1.0f / 3));
  const MatrixF x =
      solve_spd(A.view(), MatrixF({8, 7}, 2, 1).view(), pool).value();
  EXPECT_FLOAT_EQ(x(0, 0), 1.25f);
  EXPECT_FLOAT_EQ(x(1, 0), 1.5f);
}

TEST(Linalg, MatricesThatCannotBeFactoredGiveNothing) {
  ThreadPool pool(2);
  const auto refused = [&](const MatrixF& A) {
    const MatrixF B(A.rows(), 1);
    return !cholesky_lower(A.view(), pool) &&
           !inverse_cholesky_upper(A, pool) &&
           !solve_spd(A.view(), B.view(), pool);
  };
  EXPECT_TRUE(refused(MatrixF({0}, 1, 1)));
  EXPECT_TRUE(refused(MatrixF({-1}, 1, 1)));
  EXPECT_TRUE(refused(MatrixF({kNan}, 1, 1)));
  EXPECT_TRUE(refused(MatrixF({kInf}, 1, 1)));
  EXPECT_TRUE(refused(MatrixF({1, 2, 2, 1}, 2, 2)));
  for (const float bad : {kNan, kInf, -kInf, 1e30f}) {
    for (const std::size_t at : {0u, 300u, 598u}) {
      MatrixF A = random_spd(600, 13);
      A(599, at) = bad;
      A(at, 599) = bad;
      EXPECT_TRUE(refused(A)) << bad << " at " << at;
    }
  }
}

TEST(Linalg, EmptyMatricesAreFactoredToEmptyOnes) {
  ThreadPool pool(2);
  const MatrixF empty;
  EXPECT_EQ(cholesky_lower(empty.view(), pool).value().size(), 0u);
  EXPECT_EQ(inverse_cholesky_upper(empty, pool).value().size(), 0u);
}

void expect_orthonormal_columns(const MatrixF& Q) {
  for (std::size_t a = 0; a < Q.cols(); ++a) {
    for (std::size_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (std::size_t i = 0; i < Q.rows(); ++i) {
        dot += double{Q(i, a)} * double{Q(i, b)};
      }
      // Double inside, rounded to float at the end: a few units.
      ASSERT_NEAR(dot, a == b ? 1 : 0, 4 * kUnit) << a << ", " << b;
    }
  }
}

TEST(ThinSvd, MultipliesBackToTheMatrixWithOrthonormalFactors) {
  for (const auto& [m, n] : {std::pair<std::size_t, std::size_t>{1, 1},
                             {5, 5},
                             {40, 7},
                             {7, 40},
                             {61, 59}}) {
    const MatrixF A = random_matrix(m, n, 21);
    const Svd svd = thin_svd(A.view());
    const std::size_t k = std::min(m, n);
    ASSERT_EQ(svd.s.size(), k);
    ASSERT_EQ(svd.U.cols(), k);
    ASSERT_EQ(svd.V.cols(), k);
    expect_orthonormal_columns(svd.U);
    expect_orthonormal_columns(svd.V);
    for (std::size_t t = 1; t < k; ++t) EXPECT_GE(svd.s[t - 1], svd.s[t]);
    EXPECT_GE(svd.s[k - 1], 0.0f);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::size_t t = 0; t < k; ++t) {
          sum += double{svd.U(i, t)} * double{svd.s[t]} * double{svd.V(j, t)};
        }
        // Each of U, s, V is rounded once: 3 units of the largest value.
        ASSERT_NEAR(sum, A(i, j), 4 * kUnit * double{svd.s[0]});
      }
    }
  }
}

TEST(ThinSvd, FindsTheRankAndTheValuesOfAKnownMatrix) {
  // 6 u v^T with unit u = (2, 1, 2) / 3 and v = (3, 4) / 5.
  const Svd svd =
      thin_svd(MatrixF({2.4f, 3.2f, 1.2f, 1.6f, 2.4f, 3.2f}, 3, 2).view());
  EXPECT_NEAR(svd.s[0], 6, 6 * kUnit * 4);
  EXPECT_NEAR(svd.s[1], 0, 6 * kUnit * 4);  // 2.4f and so on are rounded
  EXPECT_NEAR(std::abs(svd.U(1, 0)), 1.0 / 3, 4 * kUnit);
  EXPECT_NEAR(std::abs(svd.V(1, 0)), 0.8, 4 * kUnit);
}

TEST(ThinSvd, OfZeroAndOfNothingIsZeroAndNothing) {
  const Svd zero = thin_svd(MatrixF(4, 3).view());
  EXPECT_EQ(zero.s, (std::vector<float>{0, 0, 0}));
  EXPECT_TRUE(thin_svd(MatrixF(0, 3).view()).s.empty());
}

TEST(ThinSvd, RepeatsItselfToTheBit) {
  const MatrixF A = random_matrix(50, 60, 22);
  const Svd a = thin_svd(A.view()), b = thin_svd(A.view());
  EXPECT_EQ(copy_of(a.U), copy_of(b.U));
  EXPECT_EQ(a.s, b.s);
  EXPECT_EQ(copy_of(a.V), copy_of(b.V));
}

TEST(Linalg, OpenBlasRunsTheKernelsThatWereChosenAtStart) {
  const char* chosen = std::getenv("OPENBLAS_CORETYPE");
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    ASSERT_NE(chosen, nullptr);
  }
#endif
  if (chosen == nullptr) GTEST_SKIP() << "the choice is OpenBLAS's own";
  EXPECT_EQ(blas_core_name(), chosen);
}

}  // namespace
}  // namespace llmpress

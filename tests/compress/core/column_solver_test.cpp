#include "compress/core/column_solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <tuple>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/error.h"
#include "compress/core/linalg.h"
#include "compress/core/rng.h"

namespace llmpress {
namespace {

using Table = std::vector<std::vector<double>>;

MatrixF random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Rng rng(seed);
  MatrixF M(rows, cols);
  for (float& x : M.data()) x = static_cast<float>(rng.normal());
  return M;
}

// E[x x^T] of correlated inputs: neighbours share what a random walk gave them.
MatrixF correlated_moment(std::size_t in, std::uint64_t seed,
                          ThreadPool& pool) {
  const std::size_t tokens = 4 * in + 8;
  MatrixF X = random_matrix(tokens, in, seed);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 1; i < in; ++i) X(t, i) += 0.8f * X(t, i - 1);
  }
  MatrixF S(in, in);
  add_gram(X.view(), 1.0f / static_cast<float>(tokens), S.view(), pool);
  return S;
}

MatrixF inverse_factor(const MatrixF& S, ThreadPool& pool) {
  return damped_inverse_cholesky(S.view(), 1.0f, {}, pool, "test").U;
}

ColumnCompressor round_to(float step) {
  return {.compress = [step](const ColumnWindow&, std::span<float> column) {
    for (float& w : column) w = step * std::nearbyint(w / step);
  }};
}

// The algorithm as written, one weight at a time in double precision and
// without blocks.
Table solve_naively(const MatrixF& W, const MatrixF& U, const MatrixF& P,
                    double step, double* squared_error) {
  Table Q(W.rows(), std::vector<double>(W.cols()));
  *squared_error = 0;
  for (std::size_t o = 0; o < W.rows(); ++o) {
    std::vector<double> w(W.row(o).begin(), W.row(o).end());
    for (std::size_t i = 0; i < w.size(); ++i) {
      Q[o][i] = step * std::nearbyint(w[i] / step);
      const double e = (w[i] - Q[o][i]) / static_cast<double>(U(i, i));
      *squared_error += e * e;
      for (std::size_t j = i + 1; j < w.size(); ++j) {
        w[j] -= e * static_cast<double>(U(i, j));
        if (!P.empty()) w[j] += w[i] * static_cast<double>(P(i, j));
      }
    }
  }
  return Q;
}

TEST(ColumnSolver, MatchesAHandComputedCase) {
  // Column 0: 1.4 -> 1, e = 0.4 / 2 = 0.2. Column 1: 0.6 - 0.2 * 3 = 0 -> 0.
  MatrixF W({1.4f, 0.6f}, 1, 2);
  const MatrixF U({2, 3, 0, 1}, 2, 2);
  ThreadPool pool(1);
  const ColumnSolution solution =
      solve_columns_in_place(W.view(), U.view(), round_to(1), {}, pool);
  EXPECT_EQ(W(0, 0), 1.0f);
  EXPECT_EQ(W(0, 1), 0.0f);
  EXPECT_NEAR(solution.squared_error, 0.04, 1e-6);
}

TEST(ColumnSolver, LeavesColumnsThatCompressToThemselvesAlone) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(67, 131, 1);
  const MatrixF U = inverse_factor(correlated_moment(131, 2, pool), pool);
  MatrixF Q = W;
  const ColumnCompressor identity{
      .compress = [](const ColumnWindow&, std::span<float>) {}};
  const ColumnSolution solution =
      solve_columns_in_place(Q.view(), U.view(), identity, {}, pool);
  EXPECT_EQ(solution.squared_error, 0);
  EXPECT_TRUE(std::ranges::equal(Q.data(), W.data()));
}

using Shape = std::tuple<std::size_t, std::size_t, std::size_t>;
class ColumnSolverShapes : public testing::TestWithParam<Shape> {};

TEST_P(ColumnSolverShapes, EqualsTheAlgorithmInDoublePrecision) {
  const auto [out, in, block_size] = GetParam();
  ThreadPool pool(2);
  const MatrixF W = random_matrix(out, in, 3);
  const MatrixF U = inverse_factor(correlated_moment(in, 4, pool), pool);
  for (const bool with_P : {false, true}) {
    MatrixF P;
    if (with_P) {
      P = random_matrix(in, in, 5);
      for (std::size_t i = 0; i < in; ++i) {
        for (std::size_t j = 0; j < in; ++j) P(i, j) *= j > i ? 0.01f : 0.0f;
      }
    }
    double expected_error = 0;
    constexpr double kStep = 0.25;
    const Table expected = solve_naively(W, U, P, kStep, &expected_error);
    MatrixF Q = W;
    const ColumnSolution solution =
        solve_columns_in_place(Q.view(), U.view(), round_to(kStep),
                               {.block_size = block_size, .P = P.view()}, pool);
    // A weight that falls on the edge between two codes may go either way, and
    // takes the rest of its row with it: rows agree or have met such an edge.
    std::size_t rows_off = 0;
    for (std::size_t o = 0; o < out; ++o) {
      const auto row = Q.row(o);
      rows_off += !std::ranges::equal(row, expected[o], [](float a, double b) {
        return std::abs(static_cast<double>(a) - b) < 1e-6;
      });
    }
    // in * 2^-24 * a few of rounding, over a step of 1/4, per weight.
    EXPECT_LE(rows_off, 1 + out * in / 2000) << with_P;
    EXPECT_NEAR(solution.squared_error, expected_error,
                (rows_off == 0 ? 1e-4 : 0.2) * expected_error);
  }
}

INSTANTIATE_TEST_SUITE_P(RaggedAndPrime, ColumnSolverShapes,
                         testing::Values(Shape{1, 1, 128}, Shape{5, 7, 1},
                                         Shape{64, 64, 64}, Shape{67, 97, 32},
                                         Shape{130, 257, 128},
                                         Shape{3, 50, 1000}));

TEST(ColumnSolver, ReportsTheQuadraticErrorOfItsResult) {
  constexpr std::size_t kOut = 40, kIn = 150;
  ThreadPool pool(2);
  const MatrixF S = correlated_moment(kIn, 6, pool);
  const DampedInverse inverse =
      damped_inverse_cholesky(S.view(), 1.0f, {}, pool, "test");
  const MatrixF W = random_matrix(kOut, kIn, 7);
  MatrixF Q = W;
  const ColumnSolution solution = solve_columns_in_place(
      Q.view(), inverse.U.view(), round_to(0.5f), {.block_size = 32}, pool);
  double expected = 0;
  for (std::size_t o = 0; o < kOut; ++o) {
    for (std::size_t i = 0; i < kIn; ++i) {
      for (std::size_t j = 0; j < kIn; ++j) {
        const auto s = static_cast<double>(S(i, j));
        expected += (i == j ? s + inverse.damping : s) *
                    static_cast<double>(W(o, i) - Q(o, i)) *
                    static_cast<double>(W(o, j) - Q(o, j));
      }
    }
  }
  EXPECT_NEAR(solution.squared_error, expected, 1e-4 * expected);
}

TEST(ColumnSolver, ShowsCallbacksWeightsWithAllEarlierErrorsPaid) {
  constexpr std::size_t kOut = 70, kIn = 20, kBlock = 8;
  ThreadPool pool(2);
  const MatrixF W = random_matrix(kOut, kIn, 8);
  const MatrixF U = inverse_factor(correlated_moment(kIn, 9, pool), pool);
  // Zeroing every column makes the state before column c known: columns from c
  // on are W - sum of e_k U_kj over k < c.
  Table state(kOut, std::vector<double>(kIn));
  std::vector<Table> before;
  for (std::size_t o = 0; o < kOut; ++o) {
    for (std::size_t i = 0; i < kIn; ++i) {
      state[o][i] = static_cast<double>(W(o, i));
    }
  }
  for (std::size_t c = 0; c < kIn; ++c) {
    before.push_back(state);
    for (auto& row : state) {
      const double e = row[c] / static_cast<double>(U(c, c));
      for (std::size_t j = c; j < kIn; ++j) {
        row[j] -= e * static_cast<double>(U(c, j));
      }
    }
  }
  std::mutex mutex;
  double worst = 0;
  std::size_t windows = 0, blocks = 0;
  const ColumnCompressor zero{
      .begin_block =
          [&](std::size_t begin, std::size_t end, ConstMatrixView now) {
            ++blocks;
            EXPECT_EQ(end, std::min(begin + kBlock, kIn));
            for (std::size_t o = 0; o < kOut; ++o) {
              for (std::size_t j = begin; j < kIn; ++j) {
                worst =
                    std::max(worst, std::abs(static_cast<double>(now(o, j)) -
                                             before[begin][o][j]));
              }
            }
          },
      .compress =
          [&](const ColumnWindow& window, std::span<float> column) {
            const std::lock_guard lock(mutex);
            windows += window.rows;
            for (std::size_t j = window.column; j < window.block_end; ++j) {
              for (std::size_t r = 0; r < window.rows; ++r) {
                worst = std::max(
                    worst,
                    std::abs(static_cast<double>(window.at(j)[r]) -
                             before[window.column][window.begin_row + r][j]));
              }
            }
            EXPECT_TRUE(std::ranges::equal(column, window.at(window.column)));
            std::ranges::fill(column, 0.0f);
          }};
  MatrixF Q = W;
  solve_columns_in_place(Q.view(), U.view(), zero, {.block_size = kBlock},
                         pool);
  EXPECT_EQ(windows, kOut * kIn);
  EXPECT_EQ(blocks, 3u);
  EXPECT_LT(worst, 1e-5);
}

TEST(ColumnSolver, RunsCompressorsInSequence) {
  ThreadPool pool(1);
  const MatrixF U({1, 0, 0, 1}, 2, 2);
  std::vector<int> blocks;
  const auto add = [&](int id, float factor, float term) {
    return ColumnCompressor{
        .begin_block = [&blocks, id](std::size_t, std::size_t,
                                     ConstMatrixView) { blocks.push_back(id); },
        .compress =
            [factor, term](const ColumnWindow&, std::span<float> column) {
              for (float& w : column) w = factor * w + term;
            }};
  };
  MatrixF W({1, 2}, 1, 2);
  solve_columns_in_place(W.view(), U.view(),
                         in_sequence(add(1, 1, 3), add(2, 10, 0)), {}, pool);
  EXPECT_EQ(W(0, 0), 40.0f);
  EXPECT_EQ(W(0, 1), 50.0f);
  EXPECT_EQ(blocks, (std::vector<int>{1, 2}));
  // An empty part changes nothing.
  solve_columns_in_place(W.view(), U.view(), in_sequence({}, add(3, 1, 1)), {},
                         pool);
  solve_columns_in_place(W.view(), U.view(), in_sequence(add(4, 1, 1), {}), {},
                         pool);
  EXPECT_EQ(W(0, 0), 42.0f);
}

TEST(ColumnSolver, GivesTheSameBytesAtAnyThreadCount) {
  ThreadPool one(1), three(3);
  const MatrixF W = random_matrix(333, 211, 10);
  const MatrixF U = inverse_factor(correlated_moment(211, 11, one), one);
  MatrixF a = W, b = W;
  const double error_a =
      solve_columns_in_place(a.view(), U.view(), round_to(0.3f), {}, one)
          .squared_error;
  const double error_b =
      solve_columns_in_place(b.view(), U.view(), round_to(0.3f), {}, three)
          .squared_error;
  EXPECT_TRUE(std::ranges::equal(a.data(), b.data()));
  EXPECT_EQ(error_a, error_b);
}

TEST(ColumnSolver, PayingForErrorsBeatsRoundingAlone) {
  constexpr std::size_t kOut = 32, kIn = 96;
  ThreadPool pool(2);
  const MatrixF S = correlated_moment(kIn, 12, pool);
  const MatrixF W = random_matrix(kOut, kIn, 13);
  MatrixF solved = W;
  const double error =
      solve_columns_in_place(solved.view(), inverse_factor(S, pool).view(),
                             round_to(1), {}, pool)
          .squared_error;
  MatrixF rounded = W;
  MatrixF diagonal(kIn, kIn);  // no correlation known: nothing to pay with
  for (std::size_t i = 0; i < kIn; ++i) diagonal(i, i) = 1;
  solve_columns_in_place(rounded.view(), diagonal.view(), round_to(1), {},
                         pool);
  double rounded_error = 0;
  for (std::size_t o = 0; o < kOut; ++o) {
    for (std::size_t i = 0; i < kIn; ++i) {
      for (std::size_t j = 0; j < kIn; ++j) {
        rounded_error += static_cast<double>(S(i, j)) *
                         static_cast<double>(W(o, i) - rounded(o, i)) *
                         static_cast<double>(W(o, j) - rounded(o, j));
      }
    }
  }
  EXPECT_LT(error, 0.8 * rounded_error);
}

TEST(ColumnSolver, RefusesAFactorWithoutPositiveDiagonalAndErrorsBeyondFloat) {
  ThreadPool pool(1);
  MatrixF W({1, 2}, 1, 2);
  for (const float bad : {0.0f, -1.0f, std::nanf("")}) {
    const MatrixF U({1, 0, 0, bad}, 2, 2);
    EXPECT_THROW(
        solve_columns_in_place(W.view(), U.view(), round_to(1), {}, pool),
        Error);
  }
  const MatrixF U({1, 0, 0, 1}, 2, 2);
  W(0, 1) = std::numeric_limits<float>::infinity();
  const ColumnCompressor zero{
      .compress = [](const ColumnWindow&, std::span<float> column) {
        std::ranges::fill(column, 0.0f);
      }};
  EXPECT_THROW(solve_columns_in_place(W.view(), U.view(), zero, {}, pool),
               Error);
}

}  // namespace
}  // namespace llmpress

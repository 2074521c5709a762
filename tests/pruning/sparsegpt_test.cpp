#include "pruning/sparsegpt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "pruning/magnitude.h"
#include "pruning/wanda.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

using Table = std::vector<std::vector<double>>;

Table zeros(std::size_t rows, std::size_t cols) {
  return Table(rows, std::vector<double>(cols));
}

// A^-1 by Gauss-Jordan without pivoting: A is positive definite.
Table inverse_of(Table A) {
  const std::size_t n = A.size();
  Table B = zeros(n, n);
  for (std::size_t i = 0; i < n; ++i) B[i][i] = 1;
  for (std::size_t p = 0; p < n; ++p) {
    const double pivot = A[p][p];
    for (std::size_t j = 0; j < n; ++j) A[p][j] /= pivot, B[p][j] /= pivot;
    for (std::size_t r = 0; r < n; ++r) {
      if (r == p) continue;
      const double f = A[r][p];
      for (std::size_t j = 0; j < n; ++j) {
        A[r][j] -= f * A[p][j];
        B[r][j] -= f * B[p][j];
      }
    }
  }
  return B;
}

// Upper U with A = U^T U.
Table cholesky_upper(const Table& A) {
  const std::size_t n = A.size();
  Table U = zeros(n, n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i; j < n; ++j) {
      double sum = A[i][j];
      for (std::size_t k = 0; k < i; ++k) sum -= U[k][i] * U[k][j];
      U[i][j] = i == j ? std::sqrt(sum) : sum / U[i][i];
    }
  }
  return U;
}

struct Reference {
  Table W, mask;
};

// The authors' loop in double precision, weight by weight: `in` columns in
// blocks, a sort for the threshold, no lazy batches.
Reference sparsegpt_reference(const MatrixF& W_given, const MatrixF& S,
                              const PruneConfig& config) {
  const std::size_t out = W_given.rows(), in = W_given.cols();
  Table H = zeros(in, in), W = zeros(out, in), mask = zeros(out, in);
  double mean = 0;
  for (std::size_t i = 0; i < in; ++i) {
    for (std::size_t j = 0; j < in; ++j) {
      H[i][j] = 2 * static_cast<double>(S(i, j));
    }
    if (H[i][i] == 0) H[i][i] = 1;
    mean += H[i][i] / static_cast<double>(in);
  }
  for (std::size_t i = 0; i < in; ++i) {
    H[i][i] += config.damping_fraction * mean;
  }
  for (std::size_t o = 0; o < out; ++o) {
    for (std::size_t i = 0; i < in; ++i) {
      W[o][i] = S(i, i) == 0 ? 0 : static_cast<double>(W_given(o, i));
    }
  }
  const Table U = cholesky_upper(inverse_of(H));
  const auto score = [&](std::size_t o, std::size_t i) {
    return W[o][i] * W[o][i] / (U[i][i] * U[i][i]);
  };
  for (std::size_t b = 0; b < in; b += config.block_size) {
    const std::size_t e = std::min(b + config.block_size, in);
    if (!config.patterned()) {
      std::vector<double> sorted;
      for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = b; i < e; ++i) sorted.push_back(score(o, i));
      }
      std::ranges::sort(sorted);
      const double threshold = sorted[static_cast<std::size_t>(
          static_cast<double>(sorted.size()) * config.sparsity)];
      for (std::size_t o = 0; o < out; ++o) {
        for (std::size_t i = b; i < e; ++i)
          mask[o][i] = score(o, i) > threshold;
      }
    }
    for (std::size_t i = b; i < e; ++i) {
      for (std::size_t o = 0; o < out; ++o) {
        if (config.patterned() && i % config.of == 0) {
          std::vector<std::size_t> group(std::min(config.of, in - i));
          std::iota(group.begin(), group.end(), i);
          std::ranges::sort(group, std::greater{},
                            [&](std::size_t k) { return score(o, k); });
          for (std::size_t k = 0; k < group.size(); ++k) {
            mask[o][group[k]] = k < config.keep;
          }
        }
        const double q = mask[o][i] != 0 ? W[o][i] : 0;
        const double error = (W[o][i] - q) / U[i][i];
        for (std::size_t j = i + 1; j < in; ++j) W[o][j] -= error * U[i][j];
        W[o][i] = q;
      }
    }
  }
  return {W, mask};
}

PruneResult prune(const MatrixF& W, const InputStats& stats,
                  const PruneConfig& config, std::size_t threads = 2,
                  const ColumnCompressor& then = {}) {
  ThreadPool pool(threads);
  return prune_sparsegpt({.W = W.view(),
                          .stats = &stats,
                          .config = &config,
                          .sparsity = config.target_sparsity(),
                          .pool = &pool,
                          .name = "test"},
                         then);
}

TEST(SparseGpt, MatchesAHandComputedCase) {
  // S = [[1, .5], [.5, 1]], H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] /
  // 3, U = [[sqrt(2/3), -1/sqrt(6)], [0, 1/sqrt(2)]]. Costs w^2 / U_ii^2 of the
  // row (1, 2): 1.5 and 8. Rank int(2 * .4) = 0: the first goes, and the second
  // becomes 2 - 1 / sqrt(2/3) * -1/sqrt(6) = 2.5.
  InputStats stats;
  stats.second_moment = MatrixF({1, 0.5f, 0.5f, 1}, 2, 2);
  const PruneResult result = prune(MatrixF({1, 2}, 1, 2), stats,
                                   {.sparsity = 0.4, .damping_fraction = 0});
  EXPECT_EQ(result.W(0, 0), 0.0f);
  EXPECT_NEAR(result.W(0, 1), 2.5f, 1e-6f);
  // E = (1, -.5): 1 + .25 - 2 * .5 * .5 = .75.
  EXPECT_NEAR(result.output_error.value, 0.75, 1e-6);
  EXPECT_EQ(result.sparsity, 0.5);
}

struct Case {
  std::size_t out, in;
  PruneConfig config;
};

class SparseGptCases : public testing::TestWithParam<Case> {};

TEST_P(SparseGptCases, EqualsTheAuthorsLoopInDoublePrecision) {
  const auto& [out, in, config] = GetParam();
  ThreadPool pool(2);
  InputStats stats = correlated_stats(in, 11, pool);
  if (in > 20) {  // a dead channel
    for (std::size_t i = 0; i < in; ++i) {
      stats.second_moment(i, 3) = stats.second_moment(3, i) = 0;
    }
  }
  const MatrixF W = normal_matrix(out, in, 12);
  const Reference expected =
      sparsegpt_reference(W, stats.second_moment, config);
  const PruneResult result = prune(W, stats, config);
  std::size_t masks_off = 0, weights_off = 0;
  for (std::size_t o = 0; o < out; ++o) {
    const bool same_mask = std::ranges::equal(
        result.mask.row(o), expected.mask[o],
        [](std::uint8_t a, double b) { return static_cast<double>(a) == b; });
    masks_off += !same_mask;
    // Float against double through U, whose condition is that of sqrt(H).
    weights_off +=
        same_mask && !std::ranges::equal(
                         result.W.row(o), expected.W[o], [](float a, double b) {
                           return std::abs(static_cast<double>(a) - b) < 1e-3;
                         });
  }
  EXPECT_EQ(weights_off, 0u);
  // Two scores closer than float can tell may change places.
  EXPECT_LE(masks_off, out / 50);
}

INSTANTIATE_TEST_SUITE_P(
    SparsityAndPattern, SparseGptCases,
    testing::Values(Case{1, 1, {.sparsity = 0.5}},
                    Case{8, 8, {.sparsity = 0.25}},
                    Case{64, 96, {.sparsity = 0.5, .block_size = 32}},
                    Case{53, 131, {.sparsity = 0.7, .block_size = 128}},
                    Case{53, 131, {.sparsity = 0.3, .block_size = 17}},
                    Case{64, 96, {.keep = 2, .of = 4, .block_size = 32}},
                    Case{31, 101, {.keep = 4, .of = 8, .block_size = 24}},
                    Case{31, 102, {.keep = 1, .of = 3, .block_size = 30}}));

TEST(SparseGpt, ReportsTheErrorThatTheSecondMomentGives) {
  ThreadPool pool(2);
  InputStats stats = correlated_stats(150, 13, pool);
  MatrixF W = normal_matrix(40, 150, 14);
  for (const std::size_t dead :
       {7u, 77u}) {  // large weights there cost nothing
    for (std::size_t i = 0; i < 150; ++i) {
      stats.second_moment(i, dead) = stats.second_moment(dead, i) = 0;
    }
    for (std::size_t o = 0; o < 40; ++o) W(o, dead) *= 10;
  }
  const PruneResult result = prune(W, stats, {.sparsity = 0.6});
  const double expected =
      pruned_output_error(W.view(), result.W.view(), &stats, pool).value;
  EXPECT_NEAR(result.output_error.value, expected, 2e-3 * expected);
}

TEST(SparseGpt, BeatsWandaAndWandaBeatsMagnitudeOnCorrelatedInputs) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(160, 15, pool);
  const MatrixF W = normal_matrix(96, 160, 16);
  for (const PruneConfig& config :
       {PruneConfig{.sparsity = 0.5}, PruneConfig{.keep = 2, .of = 4}}) {
    const PruneRequest request{.W = W.view(),
                               .stats = &stats,
                               .config = &config,
                               .sparsity = 0.5,
                               .pool = &pool};
    const double magnitude = prune_magnitude(request).output_error.value;
    const double wanda = prune_wanda(request).output_error.value;
    const double sparsegpt = prune_sparsegpt(request).output_error.value;
    EXPECT_LT(sparsegpt, 0.8 * wanda);
    EXPECT_LT(wanda, 0.9 * magnitude);
  }
}

TEST(SparseGpt, GivesTheSameBytesAtAnyThreadCount) {
  ThreadPool pool(1);
  const InputStats stats = correlated_stats(200, 17, pool);
  const MatrixF W = normal_matrix(300, 200, 18);
  const PruneResult a = prune(W, stats, {.sparsity = 0.5}, 1);
  const PruneResult b = prune(W, stats, {.sparsity = 0.5}, 5);
  EXPECT_TRUE(std::ranges::equal(a.W.data(), b.W.data()));
  EXPECT_TRUE(std::ranges::equal(a.mask.data(), b.mask.data()));
  EXPECT_EQ(a.output_error.value, b.output_error.value);
}

TEST(SparseGpt, KeepsEverythingAtSparsityZero) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(33, 19, pool);
  const MatrixF W = normal_matrix(5, 33, 20);
  const PruneResult result = prune(W, stats, {.sparsity = 0});
  EXPECT_TRUE(std::ranges::equal(result.W.data(), W.data()));
  EXPECT_EQ(result.output_error.value, 0);
}

TEST(SparseGpt, RaisesTheDampingAndSaysSoOrFails) {
  InputStats stats;  // eigenvalues 3 and -1
  stats.second_moment = MatrixF({1, 2, 2, 1}, 2, 2);
  const MatrixF W({1, 2}, 1, 2);
  PruneConfig config{
      .sparsity = 0.4, .damping_increment = 0.25, .damping_bound = 1.5};
  const PruneResult result = prune(W, stats, config);
  EXPECT_NEAR(result.damping_fraction, 1.01, 1e-9);
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("1.01"), std::string::npos);
  config.damping_policy = DampingPolicy::kFail;
  EXPECT_THROW(prune(W, stats, config), Error);
}

TEST(SparseGpt, ZeroesWeightsOnDeadChannelsAndSaysSo) {
  InputStats stats;
  stats.second_moment = MatrixF({2, 0, 0, 0}, 2, 2);
  const PruneResult result =
      prune(MatrixF({1, 2}, 1, 2), stats, {.sparsity = 0});
  EXPECT_EQ(result.W(0, 0), 1.0f);
  EXPECT_EQ(result.W(0, 1), 0.0f);
  EXPECT_EQ(result.notes.size(), 1u);
  EXPECT_EQ(result.output_error.value, 0);
}

TEST(SparseGpt, RoundsKeptWeightsInTheSamePassBetterThanAfterwards) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(128, 21, pool);
  const MatrixF W = normal_matrix(64, 128, 22);
  const auto round = [](float w) { return 0.5f * std::nearbyint(2 * w); };
  const ColumnCompressor rounder{
      .compress = [&](const ColumnWindow&, std::span<float> column) {
        for (float& w : column) w = round(w);
      }};
  const PruneConfig config{.keep = 2, .of = 4};
  const PruneResult joint = prune(W, stats, config, 2, rounder);
  MatrixF separate = prune(W, stats, config).W;
  for (float& w : separate.data()) w = round(w);
  for (std::size_t k = 0; k < W.size(); ++k) {
    const float w = joint.W.data()[k];
    ASSERT_EQ(w, round(w));
    if (joint.mask.data()[k] == 0) {
      ASSERT_EQ(w, 0.0f);
    }
  }
  const double joint_error =
      pruned_output_error(W.view(), joint.W.view(), &stats, pool).value;
  EXPECT_NEAR(joint.output_error.value, joint_error, 2e-3 * joint_error);
  EXPECT_LT(
      joint_error,
      0.95 *
          pruned_output_error(W.view(), separate.view(), &stats, pool).value);
}

}  // namespace
}  // namespace llmpress

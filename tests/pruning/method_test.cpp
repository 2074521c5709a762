#include "pruning/method.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "compress/core/error.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

PruneResult prune(const MatrixF& W, const InputStats& stats,
                  const PruneConfig& config) {
  ThreadPool pool(2);
  return prune_weight({.W = W.view(),
                       .stats = &stats,
                       .config = &config,
                       .sparsity = config.target_sparsity(),
                       .pool = &pool,
                       .name = "layer"});
}

ErrorCode code_of(const MatrixF& W, const InputStats& stats,
                  const PruneConfig& config) {
  try {
    prune(W, stats, config);
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()), "");
    return e.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kIo;
}

TEST(WeightPruners, HaveDistinctNamesAndAreFoundByMethod) {
  std::set<std::string_view> names;
  for (const WeightPruner& pruner : weight_pruners()) {
    EXPECT_TRUE(names.insert(pruner.name()).second);
    EXPECT_EQ(find_weight_pruner(pruner.method), &pruner);
    EXPECT_FALSE(facts_of(pruner.method).summary.empty());
  }
  EXPECT_EQ(find_weight_pruner(PruneMethod::kDepth), nullptr);
  for (const PruneMethodFacts& facts : prune_methods()) {
    EXPECT_EQ(facts.single_weights, find_weight_pruner(facts.method) != nullptr)
        << facts.name;
  }
}

TEST(WeightPruners, ReachTheirSparsityWithZerosWhereTheMaskSays) {
  ThreadPool pool(2);
  for (const WeightPruner& pruner : weight_pruners()) {
    for (const auto& [out, in] : {std::pair<std::size_t, std::size_t>{1, 1},
                                  {1, 13},
                                  {17, 1},
                                  {29, 37},
                                  {16, 64},
                                  {65, 129}}) {
      const InputStats stats = correlated_stats(in, 1, pool);
      const MatrixF W = normal_matrix(out, in, 2);
      for (const double sparsity : {0.0, 0.1, 0.5, 0.77, 0.95}) {
        const PruneResult result =
            prune(W, stats, {.method = pruner.method, .sparsity = sparsity});
        const auto numel = static_cast<double>(W.size());
        // Whole weights: one more in each block, or a floor in each row.
        EXPECT_LE(result.sparsity, sparsity + 2.0 * (in > 128 ? 2 : 1) / numel)
            << pruner.name() << " " << out << "x" << in;
        EXPECT_GE(result.sparsity, sparsity - 1.0 / static_cast<double>(in));
        for (std::size_t k = 0; k < W.size(); ++k) {
          if (result.mask.data()[k] == 0) {
            ASSERT_EQ(result.W.data()[k], 0.0f);
          }
        }
        EXPECT_TRUE(std::isfinite(result.output_error.value));
      }
    }
  }
}

TEST(WeightPruners, KeepExactlyThePatternInEveryGroup) {
  ThreadPool pool(2);
  for (const WeightPruner& pruner : weight_pruners()) {
    for (const auto& [keep, of] : {std::pair<std::size_t, std::size_t>{2, 4},
                                   {4, 8},
                                   {1, 4},
                                   {3, 5},
                                   {7, 300}}) {
      constexpr std::size_t kOut = 19, kIn = 310;
      const InputStats stats = correlated_stats(kIn, 3, pool);
      const MatrixF W = normal_matrix(kOut, kIn, 4);
      const PruneResult result =
          prune(W, stats, {.method = pruner.method, .keep = keep, .of = of});
      for (std::size_t o = 0; o < kOut; ++o) {
        for (std::size_t i = 0; i < kIn; i += of) {
          const std::size_t size = std::min(of, kIn - i);
          const auto group = result.mask.row(o).subspan(i, size);
          ASSERT_EQ(std::ranges::count(group, 1),
                    static_cast<std::ptrdiff_t>(std::min(keep, size)))
              << pruner.name() << " " << keep << ":" << of << " at " << i;
        }
      }
    }
  }
}

TEST(WeightPruners, DoNotChangeWhatIsAlreadyPrunedByThem) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(64, 5, pool);
  const MatrixF W = normal_matrix(20, 64, 6);
  for (const WeightPruner& pruner : weight_pruners()) {
    const PruneConfig config{.method = pruner.method, .keep = 2, .of = 4};
    const PruneResult once = prune(W, stats, config);
    const PruneResult twice = prune(once.W, stats, config);
    EXPECT_TRUE(std::ranges::equal(once.W.data(), twice.W.data()))
        << pruner.name();
    EXPECT_EQ(twice.output_error.value, 0) << pruner.name();
  }
}

TEST(WeightPruners, SurviveZeroConstantAndExtremeWeights) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(8, 7, pool);
  for (const WeightPruner& pruner : weight_pruners()) {
    for (const float value : {0.0f, 1.0f, 1e-44f, 1e18f}) {
      const MatrixF W(std::vector<float>(16, value), 2, 8);
      const PruneResult result =
          prune(W, stats, {.method = pruner.method, .sparsity = 0.5});
      EXPECT_NEAR(result.sparsity, 0.5, 1.0 / 16) << pruner.name() << value;
    }
  }
}

TEST(WeightPruners, GiveFiniteWeightsOrSayThatTheyCannotForTheLargestFloats) {
  ThreadPool pool(2);
  const InputStats stats = correlated_stats(64, 9, pool);
  for (const WeightPruner& pruner : weight_pruners()) {
    for (const std::size_t of : {0u, 4u}) {
      MatrixF W = normal_matrix(70, 64, 10);
      for (float& w : W.data()) w = std::copysign(3e38f, w);
      try {
        const PruneResult result = prune(
            W, stats, {.method = pruner.method, .keep = of / 2, .of = of});
        for (const float w : result.W.data()) ASSERT_TRUE(std::isfinite(w));
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kNumeric) << pruner.name();
      }
    }
  }
}

TEST(WeightPruners, RefuseWeightsThatAreNotFinite) {
  ThreadPool pool(1);
  const InputStats stats = correlated_stats(2, 8, pool);
  for (const WeightPruner& pruner : weight_pruners()) {
    for (const float bad :
         {std::nanf(""), -std::numeric_limits<float>::infinity()}) {
      EXPECT_EQ(
          code_of(MatrixF({1, bad}, 1, 2), stats, {.method = pruner.method}),
          ErrorCode::kInvalidInput);
    }
  }
}

TEST(WeightPruners, RefuseStatisticsThatAreMissingOrBad) {
  const MatrixF W({1, 2}, 1, 2);
  EXPECT_EQ(code_of(W, {}, {.method = PruneMethod::kWanda}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(W, {}, {.method = PruneMethod::kSparseGpt}),
            ErrorCode::kInvalidArgument);
  InputStats stats;
  stats.square_mean = {1, std::nanf("")};
  EXPECT_EQ(code_of(W, stats, {.method = PruneMethod::kWanda}),
            ErrorCode::kNumeric);
  stats.square_mean = {1, 1};
  stats.second_moment = MatrixF({1, 0, 0, std::nanf("")}, 2, 2);
  EXPECT_EQ(code_of(W, stats, {.method = PruneMethod::kSparseGpt}),
            ErrorCode::kNumeric);
}

TEST(WeightPruners, RefuseStructuredMethodsAndSparsitiesOutOfRange) {
  const MatrixF W({1, 2}, 1, 2);
  EXPECT_EQ(code_of(W, {}, {.method = PruneMethod::kFfn}),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(W, {}, {.method = PruneMethod::kMagnitude, .sparsity = 1}),
            ErrorCode::kInvalidArgument);
}

TEST(PruneConfig, NamesTheKeyThatIsOutOfRange) {
  const auto message = [](const PruneConfig& config) -> std::string {
    try {
      check(config);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
    return "";
  };
  const auto names = [&](const PruneConfig& config, const char* key) {
    return message(config).find(key) != std::string::npos;
  };
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({.keep = 2, .of = 4}), "");
  EXPECT_EQ(message({.allocation = SparsityAllocation::kOwl}), "");
  EXPECT_TRUE(names({.sparsity = -0.1}, "sparsity"));
  EXPECT_TRUE(names({.sparsity = std::nan("")}, "sparsity"));
  EXPECT_TRUE(names({.keep = 4, .of = 4}, "4:4"));
  EXPECT_TRUE(names({.keep = 0, .of = 4}, "0:4"));
  EXPECT_TRUE(names({.keep = 1, .of = 0}, "1:0"));
  EXPECT_TRUE(names({.method = PruneMethod::kFfn, .keep = 2, .of = 4}, "2:4"));
  EXPECT_TRUE(names({.block_size = 0}, "block_size"));
  EXPECT_TRUE(names({.damping_fraction = -1}, "damping_fraction"));
  EXPECT_TRUE(names({.method = PruneMethod::kKvHeads}, "kv_heads"));
  EXPECT_TRUE(names({.multiple_of = 0}, "multiple_of"));
  EXPECT_TRUE(names({.sparsity = 0.9, .allocation = SparsityAllocation::kOwl},
                    "owl_lambda"));
  EXPECT_TRUE(
      names({.keep = 2, .of = 4, .allocation = SparsityAllocation::kOwl},
            "allocation"));
}

}  // namespace
}  // namespace llmpress

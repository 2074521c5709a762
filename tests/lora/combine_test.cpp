#include "lora/combine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "compress/core/error.h"
#include "tests/lora/random_lora.h"

namespace llmpress {
namespace {

MatrixF row(std::vector<float> values) {
  const std::size_t n = values.size();
  return {std::move(values), 1, n};
}

std::vector<float> combined(std::vector<MatrixF> changes,
                            std::vector<double> weights,
                            const CombineConfig& config,
                            std::string_view name = "w") {
  ThreadPool pool(2);
  const MatrixF D = combine(std::move(changes), weights, config, name, pool);
  return {D.data().begin(), D.data().end()};
}

using Floats = std::vector<float>;

TEST(Combine, AddsWeightedChanges) {
  EXPECT_EQ(combined({row({1, 2}), row({4, -8})}, {1, 0.5}, {}),
            (Floats{3, -2}));
}

// Trimmed to (0, -4, 0, -3) and (5, 3, 0, 0); elected + - + -.
TEST(Combine, TrimsElectsAndAveragesAsTies) {
  const std::vector<MatrixF> changes{row({1, -4, 2, -3}), row({5, 3, -1, -2})};
  EXPECT_EQ(combined(changes, {1, 1},
                     {.method = CombineMethod::kTiesSvd, .density = 0.5}),
            (Floats{5, -4, 0, -3}));
  EXPECT_EQ(combined(changes, {1, 1}, {.method = CombineMethod::kTiesSvd}),
            (Floats{3, -4, 2, -2.5f}));
  // Equal weights scale the whole: the paper's lambda.
  EXPECT_EQ(combined(changes, {2, 2}, {.method = CombineMethod::kTiesSvd}),
            (Floats{6, -8, 4, -5}));
}

TEST(Combine, ElectsSignsBeforeWeightsCountAndPlusForATie) {
  const std::vector<MatrixF> changes{row({1, 1}), row({-1, -2})};
  EXPECT_EQ(combined(changes, {10, 3}, {.method = CombineMethod::kTies}),
            (Floats{10, -6}));
}

TEST(Combine, ElectsBySumOrByNumber) {
  const std::vector<MatrixF> changes{row({1}), row({1}), row({-5})};
  CombineConfig ties{.method = CombineMethod::kTies};
  EXPECT_EQ(combined(changes, {1, 1, 1}, ties), (Floats{-5}));
  ties.majority_sign = MajoritySign::kFrequency;
  EXPECT_EQ(combined(changes, {1, 3, 1}, ties), (Floats{2}));
}

TEST(Combine, MagnitudePruneTrimsThenAdds) {
  EXPECT_EQ(
      combined({row({1, -4, 2, -3}), row({5, 3, -1, -2})}, {1, 2},
               {.method = CombineMethod::kMagnitudePrune, .density = 0.5}),
      (Floats{10, 2, 0, -3}));
}

TEST(Combine, TrimKeepsTheEarlierOfEqualsAndRoundsTheirNumberDown) {
  MatrixF D = row({1, -2, 2, 2, 0, 3});
  trim_in_place(0.6, D.view());
  EXPECT_TRUE(std::ranges::equal(D.data(), Floats{0, -2, 2, 0, 0, 3}));
  trim_in_place(0.01, D.view());
  EXPECT_TRUE(std::ranges::equal(D.data(), Floats(6)));
}

// (1 2; 3 4) and (5 6; 7 8) of rank 1 each: A = sqrt(2) a + sqrt(3) b, and the
// same of B; the products of one's A with the other's B are in it.
TEST(Combine, LinearAddsFactorsWithTheRootOfWeightAndScaling) {
  ThreadPool pool(1);
  const std::vector<LoraDelta> deltas{
      {.A = row({1, 2}), .B = MatrixF({3, 4}, 2, 1), .scaling = 2},
      {.A = row({5, 6}), .B = MatrixF({7, 8}, 2, 1), .scaling = 6}};
  const LoraDelta sum =
      combine_factors(deltas, std::vector<double>{1, -0.5},
                      {.method = CombineMethod::kLinear}, "w", pool);
  const double p = std::sqrt(2.0), q = std::sqrt(3.0);
  EXPECT_EQ(sum.scaling, 1);
  EXPECT_FLOAT_EQ(sum.A(0, 1), static_cast<float>(p * 2 - q * 6));
  EXPECT_FLOAT_EQ(sum.B(1, 0), static_cast<float>(p * 4 + q * 8));
}

TEST(Combine, FactorsOfDifferentRanksAndDoraAreRefused) {
  ThreadPool pool(1);
  LoraDelta one{.A = MatrixF(1, 2), .B = MatrixF(2, 1)};
  const LoraDelta two{.A = MatrixF(2, 2), .B = MatrixF(2, 2)};
  const std::vector<double> weights{1, 1};
  const CombineConfig linear{.method = CombineMethod::kLinear};
  EXPECT_THROW(
      combine_factors(std::vector{one, two}, weights, linear, "w", pool),
      Error);
  one.magnitude = {1, 1};
  EXPECT_THROW(
      combine_factors(std::vector{one, one}, weights, linear, "w", pool),
      Error);
}

// diag(3, 1) and diag(0, 1): of rank 1 the sum is diag(3, 0).
TEST(Combine, SvdKeepsTheBestApproximationOfItsRank) {
  ThreadPool pool(1);
  const MatrixF a({3, 0, 0, 1}, 2, 2), b({0, 0, 0, 1}, 2, 2);
  const std::vector<double> weights{1, 1};
  const auto combine_to = [&](std::size_t rank) {
    return combine_changes({a, b}, weights,
                           {.method = CombineMethod::kSvd, .svd_rank = rank},
                           "w", pool);
  };
  const MatrixF cut = combine_to(1);
  EXPECT_NEAR(cut(0, 0), 3, 1e-6);
  EXPECT_NEAR(cut(1, 1), 0, 1e-6);
  EXPECT_EQ(combine_to(0)(1, 1), 2);
}

// n draws of probability q: within 5 sigma of n q.
void expect_binomial(std::size_t found, double n, double q) {
  EXPECT_NEAR(static_cast<double>(found), n * q,
              5 * std::sqrt(n * q * (1 - q)));
}

TEST(Combine, DareDropsAtItsRateAndRescales) {
  constexpr std::size_t kCount = 40000;
  MatrixF D(200, 200);
  std::ranges::fill(D.data(), 1.0f);
  drop_in_place(0.25, 3, D.view());
  std::size_t kept = 0;
  for (const float d : D.data()) {
    ASSERT_TRUE(d == 0 || d == 4);
    kept += d != 0;
  }
  expect_binomial(kept, kCount, 0.25);
}

TEST(Combine, DareDropsEachAdapterAndTensorByItself) {
  constexpr std::size_t kCount = 10000;
  const MatrixF ones = row(Floats(kCount, 1.0f));
  const CombineConfig dare{.method = CombineMethod::kDareLinear,
                           .density = 0.5};
  const Floats both = combined({ones, ones}, {1, 10}, dare);
  expect_binomial(static_cast<std::size_t>(std::ranges::count(both, 22.0f)),
                  kCount, 0.25);
  EXPECT_EQ(combined({ones, ones}, {1, 10}, dare), both);
  const Floats other = combined({ones, ones}, {1, 10}, dare, "v");
  std::size_t equal = 0;
  for (std::size_t i = 0; i < kCount; ++i) equal += other[i] == both[i];
  expect_binomial(equal, kCount, 0.25);
}

TEST(Combine, DareTiesElectsAmongWhatIsLeft) {
  constexpr std::size_t kCount = 1000;
  const Floats D =
      combined({row(Floats(kCount, 1.0f)), row(Floats(kCount, -3.0f))}, {1, 1},
               {.method = CombineMethod::kDareTies, .density = 0.5});
  // -6 wherever the second is left; otherwise 2 or nothing.
  expect_binomial(static_cast<std::size_t>(std::ranges::count(D, -6.0f)),
                  kCount, 0.5);
  expect_binomial(static_cast<std::size_t>(std::ranges::count(D, 2.0f)), kCount,
                  0.25);
  expect_binomial(static_cast<std::size_t>(std::ranges::count(D, 0.0f)), kCount,
                  0.25);
}

TEST(Combine, KeepsOneChangeAsItIs) {
  Rng rng(2);
  const MatrixF D = random_matrix(13, 7, rng);
  for (const std::string_view name :
       {"cat", "linear", "ties", "dare_linear", "dare_ties", "magnitude_prune",
        "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd",
        "magnitude_prune_svd"}) {
    const auto method = parse_combine_method(name);
    ASSERT_TRUE(method);
    EXPECT_EQ(name_of(*method), name);
    const Floats same = combined({D}, {1}, {.method = *method});
    EXPECT_TRUE(std::ranges::equal(same, D.data())) << name;
  }
  EXPECT_FALSE(parse_combine_method("slerp"));
}

TEST(Combine, RefusesWhatDoesNotFit) {
  const auto refuses = [](const auto& call) { EXPECT_THROW(call(), Error); };
  refuses([] { combined({}, {}, {}); });
  refuses([] { combined({row({1})}, {1, 1}, {}); });
  refuses([] { combined({row({1}), row({1, 2})}, {1, 1}, {}); });
  refuses([] { combined({row({1})}, {1}, {.density = 0}); });
  refuses([] { combined({row({1})}, {1}, {.density = 1.5}); });
  refuses([] { combined({row({3e38f}), row({3e38f})}, {1, 1}, {}); });
}

}  // namespace
}  // namespace llmpress

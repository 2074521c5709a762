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

// Trimmed to (0, -4, 0, -3) and (5, 3, 0, 0); elected + - . -.
TEST(Combine, TrimsElectsAndAveragesAsTies) {
  const std::vector<MatrixF> changes{row({1, -4, 2, -3}), row({5, 3, -1, -2})};
  EXPECT_EQ(combined(changes, {1, 1},
                     {.method = CombineMethod::kTies, .density = 0.5}),
            (Floats{5, -4, 0, -3}));
  EXPECT_EQ(combined(changes, {1, 1}, {.method = CombineMethod::kTies}),
            (Floats{3, -4, 2, -2.5f}));
  // Equal weights scale the whole: the paper's lambda.
  EXPECT_EQ(combined(changes, {2, 2}, {.method = CombineMethod::kTies}),
            (Floats{6, -8, 4, -5}));
}

TEST(Combine, LetsWeightsVoteAndTiesElectPlus) {
  const std::vector<MatrixF> changes{row({1, 1}), row({-1, -1})};
  EXPECT_EQ(combined(changes, {1, 1}, {.method = CombineMethod::kTies}),
            (Floats{1, 1}));
  EXPECT_EQ(combined(changes, {1, 3}, {.method = CombineMethod::kTies}),
            (Floats{-3, -3}));
}

TEST(Combine, TrimKeepsTheEarlierOfEquals) {
  MatrixF D = row({1, -2, 2, 2, 0, 3});
  trim_in_place(0.5, D.view());
  EXPECT_TRUE(std::ranges::equal(D.data(), Floats{0, -2, 2, 0, 0, 3}));
  trim_in_place(0.01, D.view());  // at least one
  EXPECT_TRUE(std::ranges::equal(D.data(), Floats{0, 0, 0, 0, 0, 3}));
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
       {"linear", "ties", "dare_linear", "dare_ties"}) {
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

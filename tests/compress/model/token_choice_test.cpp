#include "compress/model/token_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Logits of the probabilities 0.1, 0.4, 0.2, 0.3.
std::vector<float> logits() {
  return {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
}

void expect_distribution(const std::vector<TokenProbability>& found,
                         const std::vector<TokenProbability>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].token, expected[i].token);
    EXPECT_NEAR(found[i].probability, expected[i].probability, 1e-6);
  }
}

TEST(TokenChoice, SortsByProbability) {
  expect_distribution(sampling_distribution(logits(), {}),
                      {{1, 0.4}, {3, 0.3}, {2, 0.2}, {0, 0.1}});
}

TEST(TokenChoice, RaisesProbabilitiesToOneOverTheTemperature) {
  // 0.16, 0.09, 0.04, 0.01 of 0.3.
  expect_distribution(
      sampling_distribution(logits(), {.temperature = 0.5}),
      {{1, 16 / 30.0}, {3, 9 / 30.0}, {2, 4 / 30.0}, {0, 1 / 30.0}});
}

TEST(TokenChoice, KeepsTheTopKAndTheTopP) {
  expect_distribution(sampling_distribution(logits(), {.top_k = 2}),
                      {{1, 4 / 7.0}, {3, 3 / 7.0}});
  expect_distribution(sampling_distribution(logits(), {.top_p = 0.69}),
                      {{1, 4 / 7.0}, {3, 3 / 7.0}});
  expect_distribution(sampling_distribution(logits(), {.top_p = 0.71}),
                      {{1, 4 / 9.0}, {3, 3 / 9.0}, {2, 2 / 9.0}});
  expect_distribution(sampling_distribution(logits(), {.top_p = 1e-9}),
                      {{1, 1}});
  // top_p counts within the top k: 4/7 < 0.6.
  expect_distribution(
      sampling_distribution(logits(), {.top_k = 2, .top_p = 0.6}),
      {{1, 4 / 7.0}, {3, 3 / 7.0}});
}

TEST(TokenChoice, PutsLowerIdsFirstAmongEqualsAndNeverDrawsTheImpossible) {
  const std::vector<float> z = {kNever, 1, 1, kNever};
  expect_distribution(sampling_distribution(z, {.top_k = 1}), {{1, 1}});
  Rng rng(1);
  const auto all = sampling_distribution(z, {});
  for (int i = 0; i < 1000; ++i) {
    const TokenId token = sample(all, rng);
    EXPECT_TRUE(token == 1 || token == 2);
  }
}

TEST(TokenChoice, RefusesLogitsThatAreNoNumbers) {
  EXPECT_THROW(sampling_distribution(std::vector<float>{0, NAN}, {}), Error);
  EXPECT_THROW(sampling_distribution(std::vector<float>{kNever}, {}), Error);
  EXPECT_THROW(sampling_distribution(std::vector<float>{0, INFINITY}, {}),
               Error);
}

TEST(TokenChoice, DrawsAsOftenAsTheProbabilitiesSay) {
  const auto all = sampling_distribution(logits(), {});
  Rng rng(7);
  constexpr int kDraws = 20000;
  std::vector<int> counts(4);
  for (int i = 0; i < kDraws; ++i) ++counts[sample(all, rng)];
  for (const TokenProbability& t : all) {
    const double deviation =
        std::sqrt(kDraws * t.probability * (1 - t.probability));
    EXPECT_NEAR(counts[t.token], kDraws * t.probability, 4 * deviation);
  }
}

TEST(TokenChoice, PenalizesEveryTokenSeenOnce) {
  std::vector<float> z = {2, -2, 3, 0};
  penalize_in_place(z, std::vector<TokenId>{0, 1, 0, 3, 1}, 2);
  EXPECT_EQ(z, (std::vector<float>{1, -4, 3, 0}));
  penalize_in_place(z, std::vector<TokenId>{0, 1}, 1);
  EXPECT_EQ(z, (std::vector<float>{1, -4, 3, 0}));
  EXPECT_THROW(penalize_in_place(z, std::vector<TokenId>{4}, 2), Error);
}

}  // namespace
}  // namespace llmpress

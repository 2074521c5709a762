#include "distill/domains.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace llmpress {
namespace {

// Sequences of two tokens that name their domain.
TrainingData data_of(TokenId domain, std::size_t sequences) {
  return {std::vector<std::vector<TokenId>>{
              std::vector<TokenId>(2 * sequences, domain)},
          2};
}

class Domains : public testing::Test {
 protected:
  TrainingData a_ = data_of(0, 5), b_ = data_of(1, 3);
  std::vector<TrainingDomain> domains_{
      {.name = "a", .data = &a_, .weight = 3, .reference_loss = 1},
      {.name = "b", .data = &b_, .weight = 1, .reference_loss = 2}};
};

TEST_F(Domains, BeginAsTheyAreWeighed) {
  const auto states = first_states(domains_);
  EXPECT_EQ(states[0].weight, 0.75);
  EXPECT_EQ(states[1].weight, 0.25);
}

TEST_F(Domains, AreDrawnAsOftenAsTheirWeightsSay) {
  auto states = first_states(domains_);
  std::size_t of_b = 0;
  for (std::size_t first = 0; first < 4000; first += 8) {
    const TrainingBatch batch = draw_batch(domains_, 7, first, 8, states);
    ASSERT_EQ(batch.input.tokens.size(), 16u);
    for (const TokenId token : batch.input.tokens) {
      of_b += static_cast<std::size_t>(token);
    }
  }
  EXPECT_EQ(of_b, 2 * states[1].drawn);
  EXPECT_EQ(states[0].drawn + states[1].drawn, 4000u);
  // Five standard deviations of 4000 draws at 1/4: 137.
  EXPECT_NEAR(static_cast<double>(states[1].drawn), 1000, 137);
}

TEST_F(Domains, DrawTheSameFromTheSameState) {
  auto one = first_states(domains_), two = one;
  (void)draw_batch(domains_, 7, 0, 8, one);
  (void)draw_batch(domains_, 7, 0, 8, two);
  EXPECT_EQ(one, two);
  const TrainingBatch next = draw_batch(domains_, 7, 8, 8, one);
  const TrainingBatch again = draw_batch(domains_, 7, 8, 8, two);
  EXPECT_EQ(next.input.tokens, again.input.tokens);
  EXPECT_EQ(next.targets, again.targets);
}

// Weights 3/4 and 1/4, excesses 1.5 and 0: 0.75 e^1.5 to 0.25.
TEST_F(Domains, GainByWhatTheyLagBehind) {
  auto states = first_states(domains_);
  reweight(domains_, std::vector<double>{2.5, 1.5}, 1, states);
  const double a = 0.75 * std::exp(1.5);
  EXPECT_NEAR(states[0].weight, a / (a + 0.25), 1e-12);
  EXPECT_NEAR(states[1].weight, 0.25 / (a + 0.25), 1e-12);
  const auto before = states;
  reweight(domains_, std::vector<double>{9, 9}, 0, states);
  EXPECT_NEAR(states[0].weight, before[0].weight, 1e-12);
  reweight(domains_, std::vector<double>{1e6, 1}, 1, states);
  EXPECT_EQ(states[0].weight, 1);
  EXPECT_EQ(states[1].weight, 0);
}

}  // namespace
}  // namespace llmpress

#include "compress/model/ops/routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_matrix;

struct Surroundings {
  std::vector<std::vector<float>> parameters{};
  bool all_experts = false;
  std::size_t threads = 1;
};

// The value that an operation writes.
template <class Op>
Activations run_alone(const Op& op, std::vector<Activations> in,
                      const Surroundings& around = {}) {
  ThreadPool pool(around.threads);
  OpContext context;
  context.parameters = around.parameters;
  context.all_experts = around.all_experts;
  context.pool = &pool;
  Activations out;
  OpArguments arguments;
  for (Activations& value : in) {
    arguments.in.push_back(&value);
    arguments.last_use.push_back(false);
  }
  arguments.out = {&out};
  run(op, context, arguments);
  return out;
}

using Weights = std::map<std::size_t, float>;  // by expert

// What RouteOp makes of one token.
Weights route_one(const RouteOp& op, std::vector<float> logits,
                  std::vector<float> bias = {}) {
  const std::size_t experts = logits.size();
  RouteOp routed = op;
  routed.experts = experts;
  if (!bias.empty()) routed.bias = 0;
  const Activations out =
      run_alone(routed, {{.rows = MatrixF(std::move(logits), 1, experts)}},
                {.parameters = {std::move(bias)}});
  Weights weights;
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t r = out.routing->offsets[e];
         r < out.routing->offsets[e + 1]; ++r) {
      weights[e] = out.routing->weight[r];
    }
  }
  return weights;
}

void expect_weights(const Weights& found, const Weights& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [expert, weight] : wanted) {
    ASSERT_TRUE(found.contains(expert)) << "expert " << expert;
    EXPECT_NEAR(found.at(expert), weight, 1e-6) << "expert " << expert;
  }
}

std::vector<float> logs(std::vector<float> values) {
  for (float& x : values) x = std::log(x);
  return values;
}

TEST(Route, SoftmaxRunsOverAllExperts) {
  const auto logits = logs({1, 4, 3, 2});
  RouteOp op{.top = 2, .score = RouteScore::kSoftmax};
  expect_weights(route_one(op, logits), {{1, 0.4f}, {2, 0.3f}});
  op.scale = 3;
  expect_weights(route_one(op, logits), {{1, 1.2f}, {2, 0.9f}});
  op.normalize = true;
  expect_weights(route_one(op, logits), {{1, 12.0f / 7}, {2, 9.0f / 7}});
  op.normalize_epsilon = 0.1f;  // beside a sum of 0.7
  expect_weights(route_one(op, logits), {{1, 1.5f}, {2, 1.125f}});
}

TEST(Route, SoftmaxMayRunOverTheChosenAlone) {
  expect_weights(route_one({.top = 3, .score = RouteScore::kTopKSoftmax},
                           logs({5, 1, 3, 2, 0.5f})),
                 {{0, 0.5f}, {2, 0.3f}, {3, 0.2f}});
}

TEST(Route, OfEqualScoresTheLowerExpertIsChosen) {
  expect_weights(
      route_one({.top = 2, .score = RouteScore::kSigmoid}, {0, 0, 0, -1}),
      {{0, 0.5f}, {1, 0.5f}});
}

// Both sigmoids round to 1.
TEST(Route, LogitsAreComparedBeforeTheSigmoidOfTheChosen) {
  expect_weights(
      route_one({.top = 1, .score = RouteScore::kTopKSigmoid}, {30, 40}),
      {{1, 1.0f}});
}

TEST(Route, BiasChoosesButDoesNotWeigh) {
  const std::vector<float> logits{0, std::log(3.0f), -std::log(3.0f)};
  const RouteOp op{.top = 1, .score = RouteScore::kSigmoid};
  expect_weights(route_one(op, logits), {{1, 0.75f}});
  expect_weights(route_one(op, logits, {0, 0, 0.6f}), {{2, 0.25f}});
}

// Groups {0.3, 0.6} and {0.5, 0.5} and {0.7, 0.1}.
TEST(Route, GroupsAreRankedByTheirBestOrTheirBestTwo) {
  const std::vector<float> bias{0.3f, 0.6f, 0.5f, 0.5f, 0.7f, 0.1f};
  const std::vector<float> logits(6, -100.0f);  // sigmoids of 0
  RouteOp op{.top = 2,
             .score = RouteScore::kSigmoid,
             .groups = 3,
             .kept_groups = 1,
             .group_rank = GroupRank::kMax};
  const auto chosen = [&] {
    std::vector<std::size_t> experts;
    for (const auto& [expert, weight] : route_one(op, logits, bias)) {
      experts.push_back(expert);
    }
    return experts;
  };
  EXPECT_EQ(chosen(), (std::vector<std::size_t>{4, 5}));
  op.group_rank = GroupRank::kTopTwoSum;
  EXPECT_EQ(chosen(), (std::vector<std::size_t>{2, 3}));
  op.kept_groups = 2;
  EXPECT_EQ(chosen(), (std::vector<std::size_t>{1, 2}));
  op.kept_groups = 3;
  EXPECT_EQ(chosen(), (std::vector<std::size_t>{1, 4}));
}

// A rival counts where (best - z) / max(|z|, best) <= 2 jitter.
TEST(Route, SparseMixerWeighsAgainstRivalsInTheBand) {
  const RouteOp op{.top = 2, .score = RouteScore::kSparseMixer, .jitter = 0.1f};
  // 1.7 is in the band of 2 and 1 is not: 0.3 / 2 and 1 / 2. Of the rest 1 is
  // not in the band of 1.7.
  expect_weights(route_one(op, {1, 2, 1.7f, -3}),
                 {{1, 1 / (1 + std::exp(-0.3f))}, {2, 1.0f}});
  // (2 - -20) / 20 and (-1 - -1.2) / 1.2: the magnitudes are of either sign.
  expect_weights(route_one(op, {-20, -1, -1.2f}),
                 {{1, 1 / (1 + std::exp(-0.2f))}, {2, 1.0f}});
  // The last is 0.2 / 2 behind the first, and 0.1 / 1.9 behind the second.
  expect_weights(route_one(op, {2, 1.9f, 1.8f}),
                 {{0, 1 / (1 + std::exp(-0.1f) + std::exp(-0.2f))},
                  {1, 1 / (1 + std::exp(-0.1f))}});
}

// sum over the experts of (e + 1) x, as Dispatch and Combine carry it.
MatrixF mix(const MatrixF& X, const Activations& routes, bool weigh_input,
            const Surroundings& around = {}) {
  Activations routed = run_alone(DispatchOp{.weigh_input = weigh_input},
                                 {{.rows = X}, routes}, around);
  for (std::size_t e = 0; e < routed.routing->experts(); ++e) {
    for (std::size_t r = routed.routing->offsets[e];
         r < routed.routing->offsets[e + 1]; ++r) {
      for (float& x : routed.rows.row(r)) x *= static_cast<float>(e + 1);
    }
  }
  return run_alone(CombineOp{.weighed = weigh_input}, {routed}, around).rows;
}

bool same(const MatrixF& a, const MatrixF& b) {
  return std::equal(a.data().begin(), a.data().end(), b.data().begin(),
                    b.data().end());
}

class Experts : public ::testing::Test {
 protected:
  static constexpr std::size_t kTokens = 70, kExperts = 6, kWidth = 300;
  Rng rng_{5};
  const MatrixF X_ = random_matrix(kTokens, kWidth, rng_);
  const MatrixF logits_ = random_matrix(kTokens, kExperts, rng_, 2);
  const RouteOp op_{
      .experts = kExperts, .top = 2, .score = RouteScore::kTopKSigmoid};
  Activations routes(const Surroundings& around = {}) const {
    return run_alone(op_, {{.rows = logits_}}, around);
  }
};

TEST_F(Experts, SumOverTheTwoBestOfEveryToken) {
  for (const bool weigh_input : {false, true}) {
    const MatrixF sum = mix(X_, routes(), weigh_input);
    for (std::size_t t = 0; t < kTokens; ++t) {
      std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
      std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
        return logits_(t, a) > logits_(t, b);
      });
      double factor = 0;
      for (std::size_t k = 0; k < 2; ++k) {
        factor += static_cast<double>(order[k] + 1) /
                  (1 + std::exp(-double{logits_(t, order[k])}));
      }
      for (std::size_t c = 0; c < kWidth; ++c) {
        ASSERT_NEAR(sum(t, c), factor * double{X_(t, c)}, 1e-5);
      }
    }
  }
}

TEST_F(Experts, GiveTheSameWhereEveryOneSeesEveryToken) {
  const Surroundings all{.parameters = {}, .all_experts = true};
  const Activations everything = routes(all);
  EXPECT_EQ(everything.routing->rows(), kTokens * kExperts);
  for (const bool weigh_input : {false, true}) {
    EXPECT_TRUE(same(mix(X_, routes(), weigh_input),
                     mix(X_, everything, weigh_input, all)));
  }
  // An expert that was not chosen sees what it would see if it were.
  const Activations seen =
      run_alone(DispatchOp{.weigh_input = true}, {{.rows = X_}, everything});
  const float weight = 1 / (1 + std::exp(-logits_(3, 4)));
  EXPECT_NEAR(seen.rows(4 * kTokens + 3, 7), weight * X_(3, 7), 1e-6);
}

TEST_F(Experts, DoNotDependOnThreads) {
  const Surroundings three{.parameters = {}, .threads = 3};
  EXPECT_TRUE(
      same(mix(X_, routes(), false), mix(X_, routes(three), false, three)));
}

}  // namespace
}  // namespace llmpress

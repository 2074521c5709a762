// A mixture of experts in reverse against differences: logits are routed, rows
// are dispatched, changed by each expert and combined; L = sum c . output.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compress/model/ops/routing.h"
#include "tests/compress/kernels/random_weights.h"

namespace llmpress {
namespace {

using testing::random_matrix;

// The experts multiply by factors, one for each column.
struct Mixture {
  RouteOp route{};
  bool weigh_input = false;
  bool all_experts = false;
  std::vector<std::vector<float>> parameters{};
  MatrixF logits{}, X{}, factors{}, C{};  // factors [experts, width]
};

struct Gradients {
  MatrixF logits{}, X{};
};

// The values of one pass.
class Pass {
 public:
  Pass(const Mixture& mixture, std::size_t threads)
      : mixture_(mixture),
        pool_(threads),
        logits_{.rows = mixture.logits},
        X_{.rows = mixture.X} {
    context_.parameters = mixture.parameters;
    context_.all_experts = mixture.all_experts;
    context_.pool = &pool_;
    run(mixture_.route, context_, arguments({&logits_}, &routes_));
    run(dispatch(), context_, arguments({&X_, &routes_}, &seen_));
    given_.routing = seen_.routing;
    given_.rows = times_factors(seen_.rows);
    run(combine(), context_, arguments({&given_}, &sum_));
  }

  double loss() const {
    double sum = 0;
    for (std::size_t i = 0; i < mixture_.C.size(); ++i) {
      sum += double{mixture_.C.data()[i]} * double{sum_.rows.data()[i]};
    }
    return sum;
  }

  Gradients gradients() {
    BlockGradients own;
    Gradients d;
    MatrixF d_given;
    backward(combine(), context_,
             {.in = {&given_},
              .out = {&sum_},
              .d_out = {&mixture_.C},
              .d_in = {&d_given},
              .own = &own});
    const MatrixF d_seen = times_factors(d_given), none;
    backward(dispatch(), context_,
             {.in = {&X_, &routes_},
              .out = {&seen_},
              .d_out = {&d_seen},
              .d_in = {&d.X, nullptr},
              .own = &own});
    backward(mixture_.route, context_,
             {.in = {&logits_},
              .out = {&routes_},
              .d_out = {&none},
              .d_in = {&d.logits},
              .own = &own});
    return d;
  }

 private:
  DispatchOp dispatch() const { return {.weigh_input = mixture_.weigh_input}; }
  CombineOp combine() const { return {.weighed = mixture_.weigh_input}; }

  static OpArguments arguments(std::vector<Activations*> in, Activations* out) {
    const std::vector<bool> last_use(in.size(), false);
    return {.in = std::move(in), .last_use = last_use, .out = {out}};
  }

  MatrixF times_factors(MatrixF rows) const {
    const Routing& routing = *routes_.routing;
    for (std::size_t e = 0; e < routing.experts(); ++e) {
      for (std::size_t r = routing.offsets[e]; r < routing.offsets[e + 1];
           ++r) {
        for (std::size_t c = 0; c < rows.cols(); ++c) {
          rows(r, c) *= mixture_.factors(e, c);
        }
      }
    }
    return rows;
  }

  const Mixture& mixture_;
  ThreadPool pool_;
  OpContext context_{};
  Activations logits_, X_, routes_{}, seen_{}, given_{}, sum_{};
};

double difference(const Mixture& mixture, float& x, double step) {
  const float at = x;
  x = static_cast<float>(double{at} + step);
  const double above = Pass(mixture, 1).loss(), up = double{x};
  x = static_cast<float>(double{at} - step);
  const double below = Pass(mixture, 1).loss(), down = double{x};
  x = at;
  return (above - below) / (up - down);
}

void expect_gradient(const Mixture& mixture, const std::string& what,
                     MatrixF& at, const MatrixF& found) {
  constexpr double kStep = 1.0 / 64;
  ASSERT_EQ(at.size(), found.size()) << what;
  double squares = 0;
  for (const float g : found.data()) squares += double{g} * double{g};
  const double rms = std::sqrt(squares / static_cast<double>(found.size()));
  for (std::size_t i = 0; i < at.size(); ++i) {
    const double wide = difference(mixture, at.data()[i], 2 * kStep);
    const double near = difference(mixture, at.data()[i], kStep);
    const double expected = (4 * near - wide) / 3;
    EXPECT_NEAR(found.data()[i], expected, 1e-3 * (std::abs(expected) + rms))
        << what << ", element " << i;
  }
}

// Each row a permutation of numbers 0.4 apart, so that a step of 1/32 changes
// no choice.
MatrixF logits_apart(std::size_t tokens, std::size_t experts, Rng& rng) {
  MatrixF Z(tokens, experts);
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto z = Z.row(t);
    for (std::size_t e = 0; e < experts; ++e) {
      z[e] = 0.4f * static_cast<float>(e) - 1;
    }
    for (std::size_t e = experts; e > 1; --e) {
      std::swap(z[e - 1], z[rng.below(e)]);
    }
  }
  return Z;
}

Mixture mixture_of(RouteOp route, std::size_t tokens, std::size_t width) {
  Rng rng(3);
  return {.route = route,
          .logits = logits_apart(tokens, route.experts, rng),
          .X = random_matrix(tokens, width, rng),
          .factors = random_matrix(route.experts, width, rng),
          .C = random_matrix(tokens, width, rng)};
}

// Whether the experts weigh what goes in or what comes out, and see all tokens
// or their own.
void expect_gradients(Mixture mixture) {
  for (const bool weigh_input : {false, true}) {
    for (const bool all_experts : {false, true}) {
      SCOPED_TRACE(weigh_input ? "weighs inputs" : "weighs outputs");
      SCOPED_TRACE(all_experts ? "all experts" : "chosen experts");
      mixture.weigh_input = weigh_input;
      mixture.all_experts = all_experts;
      const Gradients found = Pass(mixture, 1).gradients();
      expect_gradient(mixture, "logits", mixture.logits, found.logits);
      expect_gradient(mixture, "x", mixture.X, found.X);
    }
  }
}

constexpr RouteScore kScores[] = {
    RouteScore::kSoftmax, RouteScore::kTopKSoftmax, RouteScore::kSigmoid,
    RouteScore::kTopKSigmoid};

TEST(RoutingGradients, AreThoseOfDifferencesForEveryScore) {
  for (const RouteScore score : kScores) {
    SCOPED_TRACE(static_cast<int>(score));
    expect_gradients(mixture_of(
        {.experts = 5, .top = 2, .score = score, .scale = 1.5f}, 4, 3));
    expect_gradients(
        mixture_of({.experts = 4, .top = 1, .score = score}, 3, 6));
  }
}

TEST(RoutingGradients, PassNormalizedWeights) {
  for (const RouteScore score : kScores) {
    SCOPED_TRACE(static_cast<int>(score));
    expect_gradients(mixture_of({.experts = 6,
                                 .top = 3,
                                 .score = score,
                                 .normalize = true,
                                 .normalize_epsilon = 0.25f,
                                 .scale = 2.5f},
                                4, 3));
  }
}

// Sums of two sigmoids are below 2: the bias keeps groups 0 and 2 and chooses
// experts 1 and 4.
TEST(RoutingGradients, LeaveBiasAndGroupsToTheChoice) {
  Mixture mixture = mixture_of({.experts = 6,
                                .top = 2,
                                .score = RouteScore::kSigmoid,
                                .normalize = true,
                                .bias = 0,
                                .groups = 3,
                                .kept_groups = 2,
                                .group_rank = GroupRank::kTopTwoSum},
                               4, 3);
  mixture.parameters = {{0, 3, 1, 0, 2, 0}};
  expect_gradients(mixture);
}

// Of 2, 1.7, 1.3 and -3 the second comes within 2 * 0.1 of the first (0.15) and
// the third does not (0.35), nor within that of the second (0.24). Of 3, 2.6,
// 2.35 and 2.1 two come within 2 * 0.125 of the first (0.13, 0.22), and two of
// the second (0.10, 0.19).
TEST(RoutingGradients, OfTheSparseMixerAreThoseOfTheSoftmaxOfRivals) {
  Mixture mixture = mixture_of({.experts = 4,
                                .top = 2,
                                .score = RouteScore::kSparseMixer,
                                .jitter = 0.1f},
                               2, 3);
  mixture.logits = MatrixF({2, 1.7f, 1.3f, -3, -3, 1.3f, 2, 1.7f}, 2, 4);
  expect_gradients(mixture);
  mixture.route.jitter = 0.125f;
  mixture.logits = MatrixF({3, 2.6f, 2.35f, 2.1f, 2.1f, 2.35f, 2.6f, 3}, 2, 4);
  expect_gradients(mixture);
}

TEST(RoutingGradients, OfIdleExpertsAreNone) {
  Mixture mixture = mixture_of(
      {.experts = 5, .top = 2, .score = RouteScore::kSigmoid}, 40, 300);
  const Gradients chosen = Pass(mixture, 1).gradients();
  mixture.all_experts = true;
  const Gradients all = Pass(mixture, 1).gradients();
  EXPECT_TRUE(std::ranges::equal(chosen.logits.data(), all.logits.data()));
  EXPECT_TRUE(std::ranges::equal(chosen.X.data(), all.X.data()));
  EXPECT_EQ(std::ranges::count(all.logits.data(), 0.0f), 40 * 3);
}

TEST(RoutingGradients, DoNotDependOnThreads) {
  for (const bool weigh_input : {false, true}) {
    Mixture mixture = mixture_of({.experts = 8, .top = 3}, 70, 600);
    mixture.weigh_input = weigh_input;
    const Gradients one = Pass(mixture, 1).gradients();
    const Gradients three = Pass(mixture, 3).gradients();
    EXPECT_TRUE(std::ranges::equal(one.logits.data(), three.logits.data()));
    EXPECT_TRUE(std::ranges::equal(one.X.data(), three.X.data()));
  }
}

TEST(RoutingGradients, WithoutOneOfTheWeightsNothingReachesTheLogits) {
  ThreadPool pool(1);
  OpContext context;
  context.pool = &pool;
  const RouteOp op{.experts = 3, .top = 1};
  Activations logits{.rows = MatrixF({1, 2, 3}, 1, 3)}, routes;
  run(op, context, {.in = {&logits}, .last_use = {false}, .out = {&routes}});
  BlockGradients own;
  MatrixF d;
  const MatrixF none;
  backward(op, context,
           {.in = {&logits},
            .out = {&routes},
            .d_out = {&none},
            .d_in = {&d},
            .own = &own});
  EXPECT_TRUE(d.empty());
}

}  // namespace
}  // namespace llmpress

#include "distill/losses/kl_divergence.h"

#include "compress/core/error.h"
#include "tests/distill/losses/loss_checks.h"

namespace llmpress {
namespace {

constexpr DivergenceConfig kForward{.kind = DivergenceKind::kForward};
constexpr DivergenceConfig kReverse{.kind = DivergenceKind::kReverse};
constexpr DivergenceConfig kMixture{.kind = DivergenceKind::kJensenShannon,
                                    .beta = 0.3f};

testing::Loss loss_of(const MatrixF& teacher, DivergenceConfig config,
                      float temperature) {
  config.temperature = temperature;
  return [&teacher, config](ConstMatrixView Z, std::span<const float> w,
                            MatrixView<float> G, ThreadPool& pool, Isa isa) {
    return divergence_loss(Z, teacher.view(), w, config, G, pool, isa);
  };
}

double kl(const std::vector<double>& log_p, const std::vector<double>& log_q) {
  double sum = 0;
  for (std::size_t i = 0; i < log_p.size(); ++i) {
    sum += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
  }
  return sum;
}

double reference(const DivergenceConfig& config,
                 const std::vector<double>& log_q,
                 const std::vector<double>& log_p) {
  if (config.kind == DivergenceKind::kForward) return kl(log_p, log_q);
  if (config.kind == DivergenceKind::kReverse) return kl(log_q, log_p);
  const double beta = double{config.beta};
  std::vector<double> log_m(log_p.size());
  for (std::size_t i = 0; i < log_m.size(); ++i) {
    log_m[i] =
        std::log(beta * std::exp(log_p[i]) + (1 - beta) * std::exp(log_q[i]));
  }
  return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m);
}

TEST(DivergenceLoss, OfTwoCoins) {
  // q = (1/2, 1/2), p = (3/4, 1/4), T = 1.
  const MatrixF Z(1, 2), teacher({std::log(3.0f), 0}, 1, 2);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  const double forward = 0.75 * std::log(1.5) + 0.25 * std::log(0.5);
  const double reverse = 0.5 * std::log(2.0 / 3) + 0.5 * std::log(2.0);
  for (const Isa isa : available_isas()) {
    MatrixF G(1, 2);
    EXPECT_NEAR(divergence_loss(Z.view(), teacher.view(), w, kForward, G.view(),
                                pool, isa),
                forward, 2e-7);
    EXPECT_NEAR(G(0, 0), -0.25, 1e-7);
    EXPECT_NEAR(G(0, 1), 0.25, 1e-7);
    EXPECT_NEAR(divergence_loss(Z.view(), teacher.view(), w, kReverse, G.view(),
                                pool, isa),
                reverse, 2e-7);
    EXPECT_NEAR(G(0, 0), -0.25 + 0.5 * (std::log(2.0 / 3) - reverse), 2e-7);
  }
}

TEST(DivergenceLoss, AgreesWithDoubleAndItsDifferences) {
  Rng rng(1);
  for (const std::size_t n : {2u, 17u, 33u, 64u, 131u}) {
    for (const float T : {1.0f, 2.5f}) {
      for (const DivergenceConfig& config : {kForward, kReverse, kMixture}) {
        const MatrixF teacher = testing::noise(5, n, rng, 3);
        const auto t = double{T};
        testing::expect_agrees(
            loss_of(teacher, config, T),
            [&](std::size_t r, std::vector<double> z) {
              for (double& x : z) x /= t;
              return t * t *
                     reference(config, testing::log_softmax(z),
                               testing::log_softmax(
                                   testing::doubles(teacher.row(r), t)));
            },
            testing::noise(5, n, rng, 3), t);
      }
    }
  }
}

TEST(DivergenceLoss, AgreesWithTorch) {
  const MatrixF teacher = testing::wave(3, 7, 2, 3);
  testing::expect_torch(
      loss_of(teacher, kForward, 2), 2.43311278021,
      {-0.2267876378, 0.03073626302, -0.0296512442, -0.08987403145});
  testing::expect_torch(
      loss_of(teacher, kReverse, 2), 2.58899865861,
      {-0.217877059, 0.03050878088, -0.320534687, -0.111423355});
  testing::expect_torch(
      loss_of(teacher, kMixture, 2), 0.50566472844,
      {-0.04540146339, 0.006254458895, -0.02321859781, -0.0197620328});
}

TEST(DivergenceLoss, IsZeroWithoutGradientForEqualLogits) {
  Rng rng(5);
  const MatrixF Z = testing::noise(3, 131, rng, 6);
  const std::vector<float> w{0.3f, 1, 7};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    for (DivergenceConfig config : {kForward, kReverse, kMixture}) {
      for (const float T : {1.0f, 3.0f}) {
        config.temperature = T;
        MatrixF G(3, 131);
        EXPECT_EQ(
            divergence_loss(Z.view(), Z.view(), w, config, G.view(), pool, isa),
            0);
        for (const float g : G.data()) EXPECT_EQ(g, 0);
      }
    }
  }
}

TEST(DivergenceLoss, JensenShannonTendsToBothDivergences) {
  Rng rng(6);
  const MatrixF Z = testing::noise(1, 40, rng, 1),
                teacher = testing::noise(1, 40, rng, 1);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  const auto value = [&](DivergenceKind kind, float beta, Isa isa) {
    MatrixF G(1, 40);
    return divergence_loss(Z.view(), teacher.view(), w,
                           {.kind = kind, .beta = beta}, G.view(), pool, isa);
  };
  for (const Isa isa : available_isas()) {
    const double forward = value(DivergenceKind::kForward, 0, isa);
    const double reverse = value(DivergenceKind::kReverse, 0, isa);
    ASSERT_GT(std::abs(forward - reverse), 0.02);
    constexpr float kSmall = 1.0f / 1024;
    const auto mixed = [&](float beta) {
      return value(DivergenceKind::kJensenShannon, beta, isa);
    };
    EXPECT_NEAR(mixed(kSmall) / double{kSmall}, forward, 5e-3);
    EXPECT_NEAR(mixed(1 - kSmall) / double{kSmall}, reverse, 5e-3);
    EXPECT_EQ(mixed(0), forward);
    EXPECT_EQ(mixed(1), reverse);
  }
}

TEST(DivergenceLoss, IsTheSameAtAnyThreadCount) {
  Rng rng(2);
  const MatrixF Z = testing::noise(67, 3001, rng, 2);
  const MatrixF teacher = testing::noise(67, 3001, rng, 2);
  for (const DivergenceConfig& config : {kForward, kReverse, kMixture}) {
    testing::expect_same_at_any_thread_count(loss_of(teacher, config, 2),
                                             Z.view());
  }
}

TEST(DivergenceLoss, IsFiniteForLogitsOfTenThousand) {
  Rng rng(3);
  const MatrixF teacher = testing::noise(4, 50, rng, 1e4);
  for (const DivergenceConfig& config : {kForward, kReverse, kMixture}) {
    testing::expect_finite(loss_of(teacher, config, 1),
                           testing::noise(4, 50, rng, 1e4).view());
  }
}

TEST(DivergenceLoss, TakesTokensThatTheTeacherForbids) {
  const float none = -std::numeric_limits<float>::infinity();
  const MatrixF teacher({0, none, 0}, 1, 3), Z(1, 3);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(1, 3);
    EXPECT_NEAR(divergence_loss(Z.view(), teacher.view(), w, kForward, G.view(),
                                pool, isa),
                std::log(1.5), 2e-7);
    EXPECT_NEAR(G(0, 1), 1.0 / 3, 1e-7);
    for (DivergenceConfig config : {kReverse, kMixture}) {
      MatrixF H(1, 3);
      const double loss = divergence_loss(Z.view(), teacher.view(), w, config,
                                          H.view(), pool, isa);
      EXPECT_EQ(std::isinf(loss), config.kind == DivergenceKind::kReverse);
      if (config.kind == DivergenceKind::kReverse) continue;
      for (const float g : H.data()) EXPECT_TRUE(std::isfinite(g));
    }
  }
}

TEST(DivergenceLoss, RefusesTemperaturesAndBetasOutOfRange) {
  const MatrixF Z(1, 3);
  MatrixF G(1, 3);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  const auto run = [&](DivergenceConfig config) {
    divergence_loss(Z.view(), Z.view(), w, config, G.view(), pool);
  };
  EXPECT_THROW(run({.temperature = 0}), Error);
  EXPECT_THROW(run({.temperature = std::nanf("")}), Error);
  EXPECT_THROW(run({.kind = DivergenceKind::kJensenShannon, .beta = 1.5f}),
               Error);
}

}  // namespace
}  // namespace llmpress

#include "distill/losses/top_k_divergence.h"

#include <algorithm>
#include <numeric>

#include "compress/core/error.h"
#include "distill/losses/kl_divergence.h"
#include "tests/distill/losses/loss_checks.h"

namespace llmpress {
namespace {

// The k most probable tokens of each row of a teacher's logits.
struct TopK {
  Matrix<std::uint32_t> ids;
  MatrixF logits, log_probabilities;
  std::vector<float> log_rest;

  TopK(const MatrixF& teacher, std::size_t k, double T)
      : ids(teacher.rows(), k),
        logits(teacher.rows(), k),
        log_probabilities(teacher.rows(), k) {
    for (std::size_t r = 0; r < teacher.rows(); ++r) {
      std::vector<std::uint32_t> order(teacher.cols());
      std::iota(order.begin(), order.end(), 0u);
      std::sort(order.begin(), order.end(),
                [&](auto a, auto b) { return teacher(r, a) > teacher(r, b); });
      const auto log_p =
          testing::log_softmax(testing::doubles(teacher.row(r), T));
      for (std::size_t i = 0; i < k; ++i) {
        ids(r, i) = order[i];
        logits(r, i) = teacher(r, order[i]);
        log_probabilities(r, i) = static_cast<float>(log_p[order[i]]);
      }
      double rest = 0;
      for (std::size_t i = k; i < order.size(); ++i) {
        rest += std::exp(double{teacher(r, order[i])} / T);
      }
      log_rest.push_back(static_cast<float>(std::log(rest)));
    }
  }
  TopKTeacher teacher(TopKValues form) const {
    const bool as_logits = form == TopKValues::kLogits;
    return {.ids = ids.view(),
            .values = as_logits ? logits.view() : log_probabilities.view(),
            .form = form,
            .log_rest = as_logits ? std::span<const float>(log_rest)
                                  : std::span<const float>()};
  }
};

testing::Loss loss_of(const TopKTeacher& teacher, TopKRest rest,
                      float temperature) {
  return [=](ConstMatrixView Z, std::span<const float> w, MatrixView<float> G,
             ThreadPool& pool, Isa isa) {
    return top_k_divergence_loss(Z, teacher, w,
                                 {.rest = rest, .temperature = temperature}, G,
                                 pool, isa);
  };
}

double reference(const std::vector<double>& log_p,
                 const std::vector<double>& log_q,
                 std::span<const std::uint32_t> ids, TopKRest rest) {
  double p_sum = 0, q_sum = 0, loss = 0;
  for (const auto id : ids) p_sum += std::exp(log_p[id]);
  for (const auto id : ids) q_sum += std::exp(log_q[id]);
  if (rest == TopKRest::kTail) {
    for (const auto id : ids) {
      loss += std::exp(log_p[id]) * (log_p[id] - log_q[id]);
    }
    if (ids.size() == log_p.size()) return loss;
    return loss + (1 - p_sum) * (std::log1p(-p_sum) - std::log1p(-q_sum));
  }
  for (const auto id : ids) {
    loss += std::exp(log_p[id]) / p_sum *
            (log_p[id] - std::log(p_sum) - log_q[id] + std::log(q_sum));
  }
  return loss;
}

TEST(TopKDivergence, OfOneTokenAndItsTail) {
  // q = (1/2, 1/4, 1/4); the teacher gives token 2 half of the mass.
  const MatrixF Z({std::log(2.0f), 0, 0}, 1, 3);
  const Matrix<std::uint32_t> ids({2}, 1, 1);
  const MatrixF values({std::log(0.5f)}, 1, 1);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(1, 3);
    // 1/2 log (1/2 / 1/4) + 1/2 log (1/2 / 3/4)
    EXPECT_NEAR(top_k_divergence_loss(
                    Z.view(), {.ids = ids.view(), .values = values.view()}, w,
                    {}, G.view(), pool, isa),
                0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3), 2e-7);
    EXPECT_NEAR(G(0, 0), 0.5 * (1 - 2.0 / 3), 1e-7);
    EXPECT_NEAR(G(0, 1), 0.25 * (1 - 2.0 / 3), 1e-7);
    EXPECT_NEAR(G(0, 2), 0.25 - 0.5, 1e-7);
  }
}

TEST(TopKDivergence, AgreesWithDoubleAndItsDifferences) {
  Rng rng(1);
  for (const std::size_t n : {5u, 33u, 131u}) {
    for (const std::size_t k : {std::size_t{1}, std::size_t{4}, n}) {
      for (const float T : {1.0f, 2.5f}) {
        for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
          const MatrixF full = testing::noise(5, n, rng, 2);
          const auto t = double{T};
          const TopK top(full, k, t);
          for (const auto form :
               {TopKValues::kLogits, TopKValues::kLogProbabilities}) {
            testing::expect_agrees(
                loss_of(top.teacher(form), rest, T),
                [&](std::size_t r, std::vector<double> z) {
                  for (double& x : z) x /= t;
                  return t * t *
                         reference(testing::log_softmax(
                                       testing::doubles(full.row(r), t)),
                                   testing::log_softmax(z), top.ids.row(r),
                                   rest);
                },
                testing::noise(5, n, rng, 2), t);
          }
        }
      }
    }
  }
}

TEST(TopKDivergence, AgreesWithTorch) {
  const TopK top(testing::wave(3, 7, 2, 3), 3, 2);
  const TopKTeacher teacher = top.teacher(TopKValues::kLogProbabilities);
  testing::expect_torch(
      loss_of(teacher, TopKRest::kTail, 2), 2.09415249715,
      {-0.2267876378, 0.03205137576, -0.0296512442, 0.07244248155});
  testing::expect_torch(loss_of(teacher, TopKRest::kRenormalised, 2),
                        1.69943890372, {-0.1571319309, 0, 0.2161402088, 0});
}

TEST(TopKDivergence, IsTheWholeDivergenceForTheWholeVocabulary) {
  Rng rng(7);
  const MatrixF full = testing::noise(4, 21, rng, 2),
                Z = testing::noise(4, 21, rng, 2);
  const TopK top(full, 21, 1);
  const std::vector<float> w(4, 1.0f);
  ThreadPool pool(1);
  MatrixF G(4, 21), H(4, 21);
  const double whole =
      divergence_loss(Z.view(), full.view(), w, {}, H.view(), pool);
  for (const auto form : {TopKValues::kLogits, TopKValues::kLogProbabilities}) {
    for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
      std::fill(G.data().begin(), G.data().end(), 0.0f);
      EXPECT_NEAR(top_k_divergence_loss(Z.view(), top.teacher(form), w,
                                        {.rest = rest}, G.view(), pool),
                  whole, 3e-6);
      for (std::size_t i = 0; i < G.size(); ++i) {
        EXPECT_NEAR(G.data()[i], H.data()[i], 1e-6);
      }
    }
  }
}

TEST(TopKDivergence, IsZeroForTheTeacherItself) {
  Rng rng(8);
  const MatrixF Z = testing::noise(4, 50, rng, 2);
  const TopK top(Z, 6, 2);
  const std::vector<float> w(4, 1.0f);
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
      MatrixF G(4, 50);
      const auto loss = loss_of(top.teacher(TopKValues::kLogits), rest, 2);
      EXPECT_NEAR(loss(Z.view(), w, G.view(), pool, isa), 0, 1e-10);
      for (const float g : G.data()) EXPECT_NEAR(g, 0, 3e-7);
    }
  }
}

TEST(TopKDivergence, KeepsTheTailOfAStudentThatIsSure) {
  // The tail's mass of the student is e^-50, which 1 - sum q would round to 0.
  MatrixF Z(1, 40);
  Z(0, 3) = 50 + std::log(39.0f);
  const Matrix<std::uint32_t> ids({3}, 1, 1);
  const MatrixF values({std::log(0.5f)}, 1, 1);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    MatrixF G(1, 40);
    EXPECT_NEAR(top_k_divergence_loss(
                    Z.view(), {.ids = ids.view(), .values = values.view()}, w,
                    {}, G.view(), pool, isa),
                0.5 * std::log(0.5) + 0.5 * (std::log(0.5) + 50), 1e-5);
    EXPECT_NEAR(G(0, 3), 0.5, 1e-6);
    EXPECT_NEAR(G(0, 4), -0.5 / 39, 1e-8);
  }
}

TEST(TopKDivergence, IsTheSameAtAnyThreadCount) {
  Rng rng(2);
  const MatrixF Z = testing::noise(67, 3001, rng, 2);
  const TopK top(testing::noise(67, 3001, rng, 2), 8, 2);
  for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
    testing::expect_same_at_any_thread_count(
        loss_of(top.teacher(TopKValues::kLogProbabilities), rest, 2), Z.view());
  }
}

TEST(TopKDivergence, IsFiniteForLogitsOfTenThousand) {
  Rng rng(3);
  const TopK top(testing::noise(4, 50, rng, 1e4), 5, 1);
  for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
    testing::expect_finite(
        loss_of(top.teacher(TopKValues::kLogProbabilities), rest, 1),
        testing::noise(4, 50, rng, 1e4).view());
  }
}

TEST(TopKDivergence, RefusesIdsAndProbabilitiesThatCannotBe) {
  const MatrixF Z(1, 5);
  MatrixF G(1, 5);
  const std::vector<float> w{1};
  ThreadPool pool(1);
  const auto run = [&](std::uint32_t a, std::uint32_t b, float log_p,
                       TopKRest rest, TopKValues form) {
    const Matrix<std::uint32_t> ids({a, b}, 1, 2);
    const MatrixF values({log_p, log_p}, 1, 2);
    top_k_divergence_loss(
        Z.view(), {.ids = ids.view(), .values = values.view(), .form = form}, w,
        {.rest = rest}, G.view(), pool);
  };
  for (const auto rest : {TopKRest::kTail, TopKRest::kRenormalised}) {
    run(0, 4, -1, rest, TopKValues::kLogProbabilities);
    EXPECT_THROW(run(0, 5, -1, rest, TopKValues::kLogProbabilities), Error);
    EXPECT_THROW(run(3, 3, -1, rest, TopKValues::kLogProbabilities), Error);
  }
  run(0, 4, 3, TopKRest::kRenormalised, TopKValues::kLogits);
  EXPECT_THROW(run(0, 4, -0.5f, TopKRest::kTail, TopKValues::kLogProbabilities),
               Error);
  EXPECT_THROW(run(0, 4, 3, TopKRest::kTail, TopKValues::kLogits), Error);
}

}  // namespace
}  // namespace llmpress

#include "distill/losses/relation_loss.h"

#include "compress/core/error.h"
#include "tests/distill/losses/loss_checks.h"

namespace llmpress {
namespace {

struct Found {
  double loss;
  MatrixF dS;
};

Found run(const MatrixF& S, const MatrixF& T, std::size_t heads,
          std::span<const float> w, Isa isa, std::size_t threads = 1) {
  ThreadPool pool(threads);
  Found f{0, MatrixF(S.rows(), S.cols())};
  f.loss = relation_loss(S.view(), T.view(), heads, w, f.dS.view(), pool, isa);
  return f;
}

// Row i of one head's relation, in logarithms.
std::vector<double> relation(const std::vector<double>& x, std::size_t cols,
                             std::size_t first, std::size_t width,
                             std::size_t i) {
  std::vector<double> scores;
  for (std::size_t j = 0; j <= i; ++j) {
    double dot = 0;
    for (std::size_t c = first; c < first + width; ++c) {
      dot += x[i * cols + c] * x[j * cols + c];
    }
    scores.push_back(dot / std::sqrt(static_cast<double>(width)));
  }
  return testing::log_softmax(scores);
}

double reference(const std::vector<double>& s, std::size_t s_cols,
                 const MatrixF& T, std::size_t heads,
                 std::span<const float> w) {
  const std::vector<double> t = testing::doubles(T.data());
  const std::size_t s_width = s_cols / heads, t_width = T.cols() / heads;
  double loss = 0;
  for (std::size_t a = 0; a < heads; ++a) {
    for (std::size_t i = 0; i < T.rows(); ++i) {
      const auto q = relation(s, s_cols, a * s_width, s_width, i);
      const auto p = relation(t, T.cols(), a * t_width, t_width, i);
      for (std::size_t j = 0; j <= i; ++j) {
        loss += double{w[i]} / static_cast<double>(heads) * std::exp(p[j]) *
                (p[j] - q[j]);
      }
    }
  }
  return loss;
}

TEST(RelationLoss, OfTwoTokens) {
  // Row 0 sees itself alone. Row 1 of the student: scores x1 x0 = 0 and x1 x1 =
  // 1; of the teacher: 0 and 0. D = (q0 - 1/2, q1 - 1/2).
  const MatrixF S({0, 1}, 2, 1), T(2, 1);
  const std::vector<float> w{1, 2};
  const double q1 = 1 / (1 + std::exp(-1.0)), q0 = 1 - q1;
  for (const Isa isa : available_isas()) {
    const Found f = run(S, T, 1, w, isa);
    EXPECT_NEAR(f.loss,
                2 * (0.5 * std::log(0.5 / q0) + 0.5 * std::log(0.5 / q1)),
                1e-6);
    EXPECT_NEAR(f.dS(0, 0), 2 * (q0 - 0.5), 1e-6);
    EXPECT_NEAR(f.dS(1, 0), 2 * 2 * (q1 - 0.5), 1e-6);
  }
}

TEST(RelationLoss, AgreesWithDoubleAndItsDifferences) {
  Rng rng(1);
  struct Case {
    std::size_t tokens, heads, s_width, t_width;
  };
  // The last one has two tiles of rows.
  for (const Case c : {Case{1, 2, 3, 3}, Case{5, 1, 4, 7}, Case{17, 3, 5, 2},
                       Case{71, 2, 1, 3}}) {
    const MatrixF S = testing::noise(c.tokens, c.heads * c.s_width, rng);
    const MatrixF T = testing::noise(c.tokens, c.heads * c.t_width, rng);
    const auto w = testing::some_weights(c.tokens);
    const auto loss = [&](const std::vector<double>& s) {
      return reference(s, S.cols(), T, c.heads, w);
    };
    const auto s = testing::doubles(S.data());
    const auto wanted = testing::numeric_gradient(loss, s);
    for (const Isa isa : available_isas()) {
      const Found f = run(S, T, c.heads, w, isa);
      EXPECT_NEAR(f.loss, loss(s), 2e-6 * (1 + loss(s)));
      testing::expect_gradient(wanted, f.dS.data(), 1);
    }
  }
}

TEST(RelationLoss, AgreesWithTorch) {
  const MatrixF S = testing::wave(5, 6, 1, 1), T = testing::wave(5, 8, 2, 1.5);
  const std::vector<float> w{0.5f, 0, 2, 1, 0.25f};
  for (const Isa isa : available_isas()) {
    const Found f = run(S, T, 2, w, isa);
    EXPECT_NEAR(f.loss, 0.309643242913, 1e-6);
    EXPECT_NEAR(f.dS(0, 0), 0.002093093959, 1e-6);
    EXPECT_NEAR(f.dS(1, 4), -0.03118882497, 1e-6);
    EXPECT_NEAR(f.dS(3, 5), -0.1670131475, 1e-6);
    EXPECT_NEAR(f.dS(4, 2), -0.01436746693, 1e-6);
  }
}

TEST(RelationLoss, IsZeroWithoutGradientForEqualVectors) {
  Rng rng(2);
  const MatrixF S = testing::noise(70, 12, rng, 3);
  const std::vector<float> w(70, 1.0f);
  for (const Isa isa : available_isas()) {
    const Found f = run(S, S, 3, w, isa);
    EXPECT_EQ(f.loss, 0);
    for (const float g : f.dS.data()) EXPECT_EQ(g, 0);
  }
}

TEST(RelationLoss, LeavesOutWhatFollowsTheLastWeight) {
  Rng rng(3);
  MatrixF S = testing::noise(9, 4, rng), T = testing::noise(9, 4, rng);
  const std::vector<float> w{1, 1, 0, 1, 1, 0, 0, 0, 0};
  const Found clean = run(S, T, 2, w, best_isa());
  EXPECT_GT(clean.loss, 0);
  for (std::size_t i = 5; i < 9; ++i) {
    std::fill_n(S.row(i).begin(), 4, std::nanf(""));
  }
  const Found f = run(S, T, 2, w, best_isa());
  EXPECT_EQ(f.loss, clean.loss);
  for (std::size_t i = 0; i < f.dS.size(); ++i) {
    EXPECT_EQ(f.dS.data()[i], clean.dS.data()[i]);
  }
}

TEST(RelationLoss, IsTheSameAtAnyThreadCountAndFinite) {
  Rng rng(4);
  const auto w = testing::some_weights(150);
  for (const double scale : {1.0, 100.0}) {  // products of 1e4
    const MatrixF S = testing::noise(150, 24, rng, scale);
    const MatrixF T = testing::noise(150, 40, rng, scale);
    for (const Isa isa : available_isas()) {
      const Found a = run(S, T, 4, w, isa, 1), b = run(S, T, 4, w, isa, 3);
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_TRUE(std::isfinite(a.loss));
      EXPECT_TRUE(std::equal(a.dS.data().begin(), a.dS.data().end(),
                             b.dS.data().begin()));
      for (const float g : a.dS.data()) EXPECT_TRUE(std::isfinite(g));
    }
  }
}

TEST(RelationLoss, RefusesHeadsThatDoNotDivideTheWidths) {
  const std::vector<float> w{1};
  EXPECT_THROW(run(MatrixF(1, 6), MatrixF(1, 8), 3, w, best_isa()), Error);
  EXPECT_THROW(run(MatrixF(1, 6), MatrixF(1, 8), 4, w, best_isa()), Error);
  EXPECT_THROW(run(MatrixF(1, 6), MatrixF(1, 8), 0, w, best_isa()), Error);
}

}  // namespace
}  // namespace llmpress

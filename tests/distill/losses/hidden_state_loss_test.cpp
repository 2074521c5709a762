#include "distill/losses/hidden_state_loss.h"

#include "compress/core/error.h"
#include "tests/distill/losses/loss_checks.h"

namespace llmpress {
namespace {

constexpr auto kSquared = HiddenStateDistance::kSquaredError;
constexpr auto kCosine = HiddenStateDistance::kCosine;

struct Found {
  double loss;
  MatrixF dStudent, dP;
};

Found run(HiddenStateDistance distance, const MatrixF& S, const MatrixF& T,
          const MatrixF& P, std::span<const float> w, std::size_t threads = 1) {
  ThreadPool pool(threads);
  Found f{0, MatrixF(S.rows(), S.cols()), MatrixF(P.rows(), P.cols())};
  f.loss = hidden_state_loss(distance, S.view(), T.view(), P.view(), w,
                             f.dStudent.view(), f.dP.view(), pool);
  return f;
}

// The whole weighted loss in double, of S and P one after the other.
double reference(HiddenStateDistance distance, const std::vector<double>& x,
                 const MatrixF& S, const MatrixF& T, const MatrixF& P,
                 std::span<const float> w) {
  const std::size_t n = T.cols(), m = S.cols();
  double loss = 0;
  for (std::size_t r = 0; r < T.rows(); ++r) {
    double squares = 0, yy = 0, tt = 0, yt = 0;
    for (std::size_t o = 0; o < n; ++o) {
      double y = P.empty() ? x[r * m + o] : 0;
      for (std::size_t i = 0; i < m && !P.empty(); ++i) {
        y += x[S.size() + o * m + i] * x[r * m + i];
      }
      const auto t = double{T(r, o)};
      squares += (y - t) * (y - t) / static_cast<double>(n);
      yy += y * y;
      tt += t * t;
      yt += y * t;
    }
    const double row =
        distance == kSquared ? squares : 1 - yt / std::sqrt(yy * tt);
    if (w[r] != 0) loss += double{w[r]} * row;
  }
  return loss;
}

TEST(HiddenStateLoss, OfTwoNumbers) {
  // y - t = (1, -3): mean square 5. Cosine of (3, 4) and (4, 3): 24 / 25.
  const std::vector<float> w{2};
  const Found a =
      run(kSquared, MatrixF({3, 1}, 1, 2), MatrixF({2, 4}, 1, 2), MatrixF(), w);
  EXPECT_DOUBLE_EQ(a.loss, 10);
  EXPECT_EQ(a.dStudent(0, 0), 2);
  EXPECT_EQ(a.dStudent(0, 1), -6);
  const Found b =
      run(kCosine, MatrixF({3, 4}, 1, 2), MatrixF({4, 3}, 1, 2), MatrixF(), w);
  EXPECT_NEAR(b.loss, 2.0 / 25, 1e-12);
  // (c y / |y| - t / |t|) / |y|
  EXPECT_NEAR(b.dStudent(0, 0), 2 * (0.96 * 0.6 - 0.8) / 5, 1e-7);
  EXPECT_NEAR(b.dStudent(0, 1), 2 * (0.96 * 0.8 - 0.6) / 5, 1e-7);
}

TEST(HiddenStateLoss, AgreesWithDoubleAndItsDifferences) {
  Rng rng(1);
  for (const auto distance : {kSquared, kCosine}) {
    for (const std::size_t width : {1u, 7u, 19u}) {
      for (const bool projected : {false, true}) {
        const std::size_t n = projected ? 11 : width;
        if (distance == kCosine && n == 1) continue;  // always -1 or 1
        const MatrixF S = testing::noise(5, width, rng);
        const MatrixF T = testing::noise(5, n, rng);
        const MatrixF P = projected ? testing::noise(n, width, rng) : MatrixF();
        const auto w = testing::some_weights(5);
        const auto loss = [&](const std::vector<double>& x) {
          return reference(distance, x, S, T, P, w);
        };
        std::vector<double> x = testing::doubles(S.data());
        for (const float p : P.data()) x.push_back(double{p});
        const Found f = run(distance, S, T, P, w);
        EXPECT_NEAR(f.loss, loss(x), 2e-6 * (1 + loss(x)));
        std::vector<float> found(f.dStudent.data().begin(),
                                 f.dStudent.data().end());
        found.insert(found.end(), f.dP.data().begin(), f.dP.data().end());
        testing::expect_gradient(testing::numeric_gradient(loss, x), found, 1);
      }
    }
  }
}

TEST(HiddenStateLoss, AgreesWithTorch) {
  const MatrixF S = testing::wave(3, 4, 1, 2), T = testing::wave(3, 4, 2, 3),
                wide = testing::wave(3, 5, 2, 3),
                P = testing::wave(5, 4, 0.5, 1);
  const std::vector<float> w{0.5f, 0, 2};
  const auto expect = [](const Found& f, double loss, double a, double b,
                         double c) {
    EXPECT_NEAR(f.loss, loss, 2e-6 * loss);
    EXPECT_NEAR(f.dStudent(0, 0), a, 1e-5);
    EXPECT_NEAR(f.dStudent(0, 3), b, 1e-5);
    EXPECT_NEAR(f.dStudent(2, 1), c, 1e-5);
  };
  expect(run(kSquared, S, T, MatrixF(), w), 7.42674559286, -0.2612376213,
         0.6344981715, -0.01257121563);
  expect(run(kCosine, S, T, MatrixF(), w), 1.12706408919, -0.06774805526,
         0.1081009664, -0.08240885835);
  const Found squared = run(kSquared, S, wide, P, w);
  expect(squared, 47.0583194708, 0.581113576, 2.412877626, 11.94292642);
  EXPECT_NEAR(squared.dP(0, 0), 1.944843318, 1e-5);
  EXPECT_NEAR(squared.dP(4, 2), 10.02665962, 1e-5);
  const Found cosine = run(kCosine, S, wide, P, w);
  expect(cosine, 2.35783143982, -0.0112556871, 0.01795993664, -0.01085255419);
  EXPECT_NEAR(cosine.dP(0, 0), -0.2255956322, 1e-6);
  EXPECT_NEAR(cosine.dP(4, 2), 0.2914499473, 1e-6);
}

TEST(HiddenStateLoss, LeavesOutRowsOfWeightZeroWhateverTheyHold) {
  Rng rng(2);
  MatrixF S = testing::noise(6, 5, rng);
  const MatrixF T = testing::noise(6, 4, rng), P = testing::noise(4, 5, rng);
  const auto w = testing::some_weights(6);
  for (const auto distance : {kSquared, kCosine}) {
    const Found clean = run(distance, S, T, P, w);
    MatrixF dirty = S;
    for (std::size_t r = 0; r < 6; ++r) {
      if (w[r] == 0) std::fill_n(dirty.row(r).begin(), 5, std::nanf(""));
    }
    const Found f = run(distance, dirty, T, P, w);
    EXPECT_EQ(f.loss, clean.loss);
    for (std::size_t i = 0; i < f.dP.size(); ++i) {
      EXPECT_EQ(f.dP.data()[i], clean.dP.data()[i]);
    }
    for (const float g : f.dStudent.row(1)) EXPECT_EQ(g, 0);
  }
}

TEST(HiddenStateLoss, IsZeroForEqualStatesAndOneForNone) {
  Rng rng(3);
  const MatrixF S = testing::noise(3, 9, rng);
  const std::vector<float> w{1, 1, 1};
  const Found squared = run(kSquared, S, S, MatrixF(), w);
  EXPECT_EQ(squared.loss, 0);
  for (const float g : squared.dStudent.data()) EXPECT_EQ(g, 0);
  const Found cosine = run(kCosine, S, S, MatrixF(), w);
  EXPECT_NEAR(cosine.loss, 0, 1e-14);
  for (const float g : cosine.dStudent.data()) EXPECT_NEAR(g, 0, 1e-7);
  const Found none = run(kCosine, MatrixF(3, 9), S, MatrixF(), w);
  EXPECT_EQ(none.loss, 3);
  for (const float g : none.dStudent.data()) EXPECT_EQ(g, 0);
}

TEST(HiddenStateLoss, IsTheSameAtAnyThreadCountAndFinite) {
  Rng rng(4);
  const MatrixF S = testing::noise(301, 517, rng, 1e4),
                T = testing::noise(301, 389, rng, 1e4),
                P = testing::noise(389, 517, rng);
  const auto w = testing::some_weights(301);
  for (const auto distance : {kSquared, kCosine}) {
    const Found a = run(distance, S, T, P, w, 1),
                b = run(distance, S, T, P, w, 3);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_TRUE(std::isfinite(a.loss));
    EXPECT_TRUE(std::equal(a.dStudent.data().begin(), a.dStudent.data().end(),
                           b.dStudent.data().begin()));
    EXPECT_TRUE(std::equal(a.dP.data().begin(), a.dP.data().end(),
                           b.dP.data().begin()));
    for (const float g : a.dP.data()) EXPECT_TRUE(std::isfinite(g));
  }
}

TEST(HiddenStateLoss, RefusesWidthsThatDoNotFit) {
  const std::vector<float> w{1};
  EXPECT_THROW(run(kSquared, MatrixF(1, 3), MatrixF(1, 4), MatrixF(), w),
               Error);
  EXPECT_THROW(run(kSquared, MatrixF(1, 3), MatrixF(1, 4), MatrixF(3, 4), w),
               Error);
}

}  // namespace
}  // namespace llmpress

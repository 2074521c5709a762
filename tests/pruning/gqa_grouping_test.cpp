#include "pruning/gqa_grouping.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "tests/pruning/correlated_input.h"

namespace llmpress {
namespace {

using Vector = std::vector<double>;

Vector product(const MatrixF& W, const std::vector<float>& bias,
               const Vector& x) {
  Vector y(W.rows());
  for (std::size_t o = 0; o < W.rows(); ++o) {
    if (!bias.empty()) y[o] = static_cast<double>(bias[o]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[o] += static_cast<double>(W(o, i)) * x[i];
    }
  }
  return y;
}

// Turns one head by its position.
void rotate(std::span<double> head, const AttentionShape& shape,
            double position) {
  const std::size_t rotary =
      shape.rotary_dim == 0 ? shape.head_dim : shape.rotary_dim;
  for (std::size_t i = 0; i < rotary / 2; ++i) {
    const bool halves = shape.pairs == RotaryPairs::kHalves;
    double& x = head[halves ? i : 2 * i];
    double& y = head[halves ? i + rotary / 2 : 2 * i + 1];
    const double angle = position / (1.0 + 3.0 * static_cast<double>(i));
    const double turned_x = x * std::cos(angle) - y * std::sin(angle);
    y = x * std::sin(angle) + y * std::cos(angle);
    x = turned_x;
  }
}

// Causal attention of the rows of X [tokens, d]: [tokens, d].
std::vector<Vector> attend(const AttentionWeights& weights,
                           const AttentionShape& shape, const MatrixF& X) {
  const std::size_t h = shape.head_dim, share = shape.heads / shape.kv_heads;
  std::vector<Vector> q, k, v, outputs;
  for (std::size_t t = 0; t < X.rows(); ++t) {
    const Vector x(X.row(t).begin(), X.row(t).end());
    q.push_back(product(weights.q, weights.q_bias, x));
    k.push_back(product(weights.k, weights.k_bias, x));
    v.push_back(product(weights.v, weights.v_bias, x));
    const auto position = static_cast<double>(t);
    for (std::size_t a = 0; a < shape.heads; ++a) {
      rotate(std::span(q[t]).subspan(a * h, h), shape, position);
    }
    for (std::size_t a = 0; a < shape.kv_heads; ++a) {
      rotate(std::span(k[t]).subspan(a * h, h), shape, position);
    }
    Vector mixed(shape.heads * h);
    for (std::size_t a = 0; a < shape.heads; ++a) {
      Vector weight(t + 1);
      double sum = 0;
      for (std::size_t s = 0; s <= t; ++s) {
        double dot = 0;
        for (std::size_t i = 0; i < h; ++i) {
          dot += q[t][a * h + i] * k[s][a / share * h + i];
        }
        sum += weight[s] = std::exp(dot / std::sqrt(static_cast<double>(h)));
      }
      for (std::size_t s = 0; s <= t; ++s) {
        for (std::size_t i = 0; i < h; ++i) {
          mixed[a * h + i] += weight[s] / sum * v[s][a / share * h + i];
        }
      }
    }
    outputs.push_back(product(weights.o, {}, mixed));
  }
  return outputs;
}

double mean_square(const std::vector<Vector>& A, const std::vector<Vector>& B) {
  double sum = 0;
  for (std::size_t t = 0; t < A.size(); ++t) {
    for (std::size_t i = 0; i < A[t].size(); ++i) {
      sum += (A[t][i] - B[t][i]) * (A[t][i] - B[t][i]);
    }
  }
  return sum / static_cast<double>(A.size() * A[0].size());
}

AttentionWeights random_attention(const AttentionShape& shape, std::size_t d,
                                  bool bias, std::uint64_t seed) {
  const std::size_t q = shape.heads * shape.head_dim;
  const std::size_t kv = shape.kv_heads * shape.head_dim;
  AttentionWeights weights{
      normal_matrix(q, d, seed), normal_matrix(kv, d, seed + 1),
      normal_matrix(kv, d, seed + 2), normal_matrix(d, q, seed + 3)};
  const float scale = 0.7f / std::sqrt(static_cast<float>(d));
  for (float& w : weights.q.data()) w *= scale;
  for (float& w : weights.k.data()) w *= scale;
  if (!bias) return weights;
  const auto vector = [&](std::size_t n, std::uint64_t s) {
    const MatrixF M = normal_matrix(1, n, s);
    return std::vector<float>(M.data().begin(), M.data().end());
  };
  weights.q_bias = vector(q, seed + 4);
  weights.k_bias = vector(kv, seed + 5);
  weights.v_bias = vector(kv, seed + 6);
  return weights;
}

// Makes key/value head `to` a copy of head `from` as far as rotary embeddings
// and the output matrix can tell: keys turned and scaled pair by pair, values
// mixed by a matrix.
void make_alike(AttentionWeights& weights, const AttentionShape& shape,
                std::size_t from, std::size_t to) {
  const std::size_t h = shape.head_dim;
  const std::size_t rotary = shape.rotary_dim == 0 ? h : shape.rotary_dim;
  const auto pair = [&](std::size_t p) -> std::pair<std::size_t, std::size_t> {
    if (p < rotary / 2 && shape.pairs == RotaryPairs::kHalves) {
      return {p, p + rotary / 2};
    }
    return {2 * p, 2 * p + 1};
  };
  const auto set = [&](auto&& k, auto&& v) {
    for (std::size_t p = 0; p < h / 2; ++p) {
      const auto [x, y] = pair(p);
      const float re = 0.6f + 0.1f * static_cast<float>(p + to), im = -0.8f;
      k(to * h + x) = re * k(from * h + x) - im * k(from * h + y);
      k(to * h + y) = re * k(from * h + y) + im * k(from * h + x);
    }
    for (std::size_t i = 0; i < h; ++i) {
      v(to * h + i) = 0.5f * v(from * h + i) - 1.5f * v(from * h + (i + 1) % h);
    }
  };
  for (std::size_t c = 0; c < weights.k.cols(); ++c) {
    set([&](std::size_t r) -> float& { return weights.k(r, c); },
        [&](std::size_t r) -> float& { return weights.v(r, c); });
  }
  if (!weights.k_bias.empty()) {
    set([&](std::size_t r) -> float& { return weights.k_bias[r]; },
        [&](std::size_t r) -> float& { return weights.v_bias[r]; });
  }
}

GroupedAttention calibrated(const AttentionWeights& weights,
                            const AttentionShape& shape, std::size_t kv_heads,
                            const MatrixF& X) {
  ThreadPool pool(2);
  return group_kv_heads_calibrated(
      weights, shape, kv_heads, stats_of(X, pool).second_moment.view(), pool);
}

TEST(KvGrouping, AveragesNeighbouringHeads) {
  const AttentionShape shape{.heads = 2, .kv_heads = 2, .head_dim = 1};
  const AttentionWeights weights{MatrixF({1, 2}, 2, 1),
                                 MatrixF({3, 5}, 2, 1),
                                 MatrixF({-1, 7}, 2, 1),
                                 MatrixF({1, 2}, 1, 2),
                                 {},
                                 {2, 4},
                                 {}};
  const GroupedAttention grouped = group_kv_heads_by_mean(weights, shape, 1);
  EXPECT_EQ(grouped.weights.k.rows(), 1u);
  EXPECT_EQ(grouped.weights.k(0, 0), 4.0f);
  EXPECT_EQ(grouped.weights.v(0, 0), 3.0f);
  EXPECT_EQ(grouped.weights.k_bias, std::vector<float>{3});
  EXPECT_TRUE(grouped.weights.v_bias.empty());
  EXPECT_TRUE(std::ranges::equal(grouped.weights.q.data(), weights.q.data()));
  EXPECT_TRUE(std::ranges::equal(grouped.weights.o.data(), weights.o.data()));
}

TEST(KvGrouping, MeanOfEqualHeadsComputesTheSame) {
  const AttentionShape shape{.heads = 4, .kv_heads = 4, .head_dim = 6};
  AttentionWeights weights = random_attention(shape, 10, true, 1);
  for (const std::size_t a : {1u, 3u}) {
    for (std::size_t i = 0; i < 6; ++i) {
      std::ranges::copy(weights.k.row((a - 1) * 6 + i),
                        weights.k.row(a * 6 + i).begin());
      std::ranges::copy(weights.v.row((a - 1) * 6 + i),
                        weights.v.row(a * 6 + i).begin());
      weights.k_bias[a * 6 + i] = weights.k_bias[(a - 1) * 6 + i];
      weights.v_bias[a * 6 + i] = weights.v_bias[(a - 1) * 6 + i];
    }
  }
  const MatrixF X = normal_matrix(9, 10, 2);
  AttentionShape new_shape = shape;
  new_shape.kv_heads = 2;
  const AttentionWeights grouped =
      group_kv_heads_by_mean(weights, shape, 2).weights;
  EXPECT_LT(
      mean_square(attend(weights, shape, X), attend(grouped, new_shape, X)),
      1e-10);
}

struct LayoutCase {
  RotaryPairs pairs;
  std::size_t heads, rotary_dim;
  bool bias;
};
class KvGroupingLayouts : public testing::TestWithParam<LayoutCase> {};

TEST_P(KvGroupingLayouts, IsExactForHeadsThatAreAlikeWhereverTheyStand) {
  const auto& [pairs, heads, rotary_dim, bias] = GetParam();
  const AttentionShape shape{.heads = heads,
                             .kv_heads = 4,
                             .head_dim = 8,
                             .pairs = pairs,
                             .rotary_dim = rotary_dim};
  AttentionWeights weights = random_attention(shape, 24, bias, 3);
  make_alike(weights, shape, 0, 2);
  make_alike(weights, shape, 1, 3);
  const MatrixF X = correlated_inputs(60, 24, 4);
  const GroupedAttention grouped = calibrated(weights, shape, 2, X);
  EXPECT_EQ(grouped.kv_order, (std::vector<std::size_t>{0, 2, 1, 3}));
  EXPECT_NEAR(grouped.key_loss, 0, 1e-5);
  EXPECT_NEAR(grouped.value_loss, 0, 1e-5);
  AttentionShape new_shape = shape;
  new_shape.kv_heads = 2;
  const auto before = attend(weights, shape, X);
  const std::vector<Vector> zero(before.size(), Vector(before[0].size()));
  EXPECT_LT(mean_square(before, attend(grouped.weights, new_shape, X)),
            1e-6 * mean_square(before, zero));
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, KvGroupingLayouts,
    testing::Values(LayoutCase{RotaryPairs::kHalves, 4, 0, false},
                    LayoutCase{RotaryPairs::kHalves, 8, 0, true},
                    LayoutCase{RotaryPairs::kInterleaved, 4, 0, true},
                    LayoutCase{RotaryPairs::kHalves, 4, 4, false},
                    LayoutCase{RotaryPairs::kInterleaved, 12, 4, true}));

TEST(KvGrouping, CalibratedBeatsMeanPoolingOnHeadsThatDiffer) {
  const AttentionShape shape{.heads = 8, .kv_heads = 8, .head_dim = 8};
  AttentionShape new_shape = shape;
  new_shape.kv_heads = 4;
  const AttentionWeights weights = random_attention(shape, 32, false, 5);
  const MatrixF X = correlated_inputs(160, 32, 6);
  const auto before = attend(weights, shape, X);
  const double pooled = mean_square(
      before,
      attend(group_kv_heads_by_mean(weights, shape, 4).weights, new_shape, X));
  const double fitted = mean_square(
      before, attend(calibrated(weights, shape, 4, X).weights, new_shape, X));
  EXPECT_LT(fitted, 0.7 * pooled);
}

TEST(KvGrouping, LossesAreWhatTheNewHeadsCannotCarry) {
  // Two heads of one pair with keys of power 9 and 1 that share nothing: the
  // stronger one stays. Values: powers 4, 4 and 1, 1.
  const AttentionShape shape{.heads = 2, .kv_heads = 2, .head_dim = 2};
  AttentionWeights weights = random_attention(shape, 8, false, 7);
  weights.k = weights.v = MatrixF(4, 8);
  for (std::size_t r = 0; r < 4; ++r) {
    weights.k(r, r) = r < 2 ? 3.0f : 1.0f;
    weights.v(r, r) = r < 2 ? 2.0f : 1.0f;
  }
  MatrixF S(8, 8);
  for (std::size_t i = 0; i < 8; ++i) S(i, i) = 1;
  ThreadPool pool(1);
  const GroupedAttention grouped =
      group_kv_heads_calibrated(weights, shape, 1, S.view(), pool);
  EXPECT_NEAR(grouped.key_loss, 2.0 / 20, 1e-5);
  EXPECT_NEAR(grouped.value_loss, 2.0 / 10, 1e-5);
}

TEST(KvGrouping, AsManyHeadsAsBeforeChangeNothing) {
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 4};
  const AttentionWeights weights = random_attention(shape, 8, true, 8);
  const GroupedAttention grouped =
      calibrated(weights, shape, 2, normal_matrix(20, 8, 9));
  EXPECT_TRUE(std::ranges::equal(grouped.weights.k.data(), weights.k.data()));
  EXPECT_TRUE(std::ranges::equal(grouped.weights.o.data(), weights.o.data()));
  EXPECT_EQ(grouped.weights.v_bias, weights.v_bias);
}

TEST(KvGrouping, SurvivesHeadsThatAreSilent) {
  const AttentionShape shape{.heads = 2, .kv_heads = 2, .head_dim = 4};
  AttentionWeights weights = random_attention(shape, 8, false, 10);
  std::ranges::fill(weights.k.data(), 0.0f);
  std::ranges::fill(weights.v.data(), 0.0f);
  const GroupedAttention grouped =
      calibrated(weights, shape, 1, normal_matrix(20, 8, 11));
  for (const float w : grouped.weights.q.data()) EXPECT_TRUE(std::isfinite(w));
  for (const float w : grouped.weights.o.data()) EXPECT_TRUE(std::isfinite(w));
  EXPECT_EQ(grouped.key_loss, 0);
}

TEST(KvGrouping, RefusesShapesThatDoNotFit) {
  const AttentionShape shape{.heads = 4, .kv_heads = 4, .head_dim = 4};
  const AttentionWeights weights = random_attention(shape, 8, true, 12);
  const MatrixF X = normal_matrix(20, 8, 13);
  EXPECT_THROW(group_kv_heads_by_mean(weights, shape, 3), Error);
  EXPECT_THROW(group_kv_heads_by_mean(weights, shape, 0), Error);
  AttentionShape wrong = shape;
  wrong.head_dim = 2;
  EXPECT_THROW(group_kv_heads_by_mean(weights, wrong, 2), Error);
  wrong = shape;
  wrong.rotary_dim = 3;
  EXPECT_THROW(calibrated(weights, wrong, 2, X), Error);
  AttentionWeights broken = weights;
  broken.k_bias.pop_back();
  EXPECT_THROW(group_kv_heads_by_mean(broken, shape, 2), Error);
  EXPECT_THROW(calibrated(weights, shape, 2, normal_matrix(20, 7, 14)), Error);
}

}  // namespace
}  // namespace llmpress

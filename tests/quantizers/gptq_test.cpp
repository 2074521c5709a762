#include "quantizers/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "compress/core/damping.h"
#include "compress/core/error.h"
#include "quantizers/int_grid.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::correlated_layer;
using testing_support::gptq_config;
using testing_support::Layer;
using testing_support::run_method;
using testing_support::stats_of;

using DoubleMatrix = std::vector<std::vector<double>>;

// The inverse of a symmetric positive definite matrix by Gauss-Jordan.
DoubleMatrix inverse_of(DoubleMatrix A) {
  const std::size_t n = A.size();
  DoubleMatrix B(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i) B[i][i] = 1;
  for (std::size_t k = 0; k < n; ++k) {
    const double pivot = A[k][k];
    for (std::size_t j = 0; j < n; ++j) A[k][j] /= pivot, B[k][j] /= pivot;
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double f = A[i][k];
      for (std::size_t j = 0; j < n; ++j) {
        A[i][j] -= f * A[k][j];
        B[i][j] -= f * B[k][j];
      }
    }
  }
  return B;
}

struct Reference {
  std::vector<std::vector<int>> codes;  // [out][in]
  // |w / s + z - nearest tie|, the distance of each decision from tipping over.
  std::vector<std::vector<double>> margin;
};

// GPTQ as optimal brain surgery, column by column without batches: after
// rounding p the others move by -(w_p - q_p) / Hinv[p,p] * Hinv[p,:], and p is
// removed from Hinv by one step of Gaussian elimination (arXiv:2210.17323,
// Eqs. 2 and 3). Row by row in double; only the grids are shared code.
Reference optimal_brain_quantization(const Layer& layer,
                                     const QuantizeConfig& config) {
  const std::size_t out = layer.W.rows(), in = layer.W.cols();
  const std::size_t gs = resolved_group_size(config.weights, in);
  const MatrixF& S = layer.stats.second_moment;
  double mean = 0;
  for (std::size_t i = 0; i < in; ++i) mean += static_cast<double>(S(i, i));
  mean /= static_cast<double>(in);
  std::vector<std::size_t> order(in);
  std::iota(order.begin(), order.end(), 0u);
  if (config.gptq.act_order) {
    std::ranges::stable_sort(
        order, [&](std::size_t a, std::size_t b) { return S(a, a) > S(b, b); });
  }
  const bool fixed =
      config.gptq.act_order && config.gptq.static_groups && gs < in;
  const auto group_at = [&](std::size_t p) {
    return (config.gptq.act_order && !fixed ? p : order[p]) / gs;
  };
  Reference reference{
      std::vector(out, std::vector<int>(in)),
      std::vector(out, std::vector<double>(in)),
  };
  for (std::size_t o = 0; o < out; ++o) {
    DoubleMatrix H(in, std::vector<double>(in));
    for (std::size_t i = 0; i < in; ++i) {
      for (std::size_t j = 0; j < in; ++j) {
        H[i][j] = static_cast<double>(S(i, j)) +
                  (i == j ? config.gptq.damping_fraction * mean : 0.0);
      }
    }
    DoubleMatrix Hinv = inverse_of(H);
    std::vector<double> w(layer.W.row(o).begin(), layer.W.row(o).end());
    std::vector<IntGrid> grids((in + gs - 1) / gs);
    const auto fit = [&](std::size_t g, std::span<const std::size_t> columns) {
      std::vector<float> values;
      for (const std::size_t i : columns) {
        values.push_back(static_cast<float>(w[i]));
      }
      grids[g] = fit_int_grid(values, config.weights);
    };
    std::vector<std::size_t> plain(in);
    std::iota(plain.begin(), plain.end(), 0u);
    if (fixed) {
      for (std::size_t g = 0; g < grids.size(); ++g) {
        fit(g, std::span(plain).subspan(g * gs, std::min(gs, in - g * gs)));
      }
    }
    const int top = (1 << config.weights.bits) - 1;
    for (std::size_t p = 0; p < in; ++p) {
      const std::size_t c = order[p];
      const std::size_t g = group_at(p);
      if (!fixed && p % gs == 0) {
        fit(g, std::span(order).subspan(p, std::min(gs, in - p)));
      }
      const auto s = static_cast<double>(grids[g].scale);
      const double steps = w[c] / s;
      const int code = std::clamp(
          static_cast<int>(std::nearbyint(steps)) + grids[g].zero, 0, top);
      reference.codes[o][c] = code;
      reference.margin[o][c] =
          std::abs(std::abs(steps - std::floor(steps)) - 0.5);
      const double e = (w[c] - s * (code - grids[g].zero)) / Hinv[c][c];
      for (std::size_t j = 0; j < in; ++j) w[j] -= e * Hinv[c][j];
      const std::vector<double> row = Hinv[c];
      for (std::size_t i = 0; i < in; ++i) {
        const double f = Hinv[i][c] / row[c];
        for (std::size_t j = 0; j < in; ++j) Hinv[i][j] -= f * row[j];
      }
    }
  }
  return reference;
}

const GroupedIntWeight& grouped(const QuantizeResult& result) {
  return std::get<GroupedIntWeight>(result.weight);
}

using Case = std::tuple<int, std::int64_t, bool, bool, bool>;
class GptqAgainstReference : public testing::TestWithParam<Case> {};

// Rounding is a discontinuous decision: float32 may take the other one where
// the double reference is near a tie, and everything behind it in the row
// differs. So each row must agree up to its first near tie.
TEST_P(GptqAgainstReference, TakesTheSameDecisions) {
  const auto [bits, group_size, symmetric, act_order, mse] = GetParam();
  const Layer layer = correlated_layer(37, 75, 11);
  QuantizeConfig config = gptq_config(bits, group_size);
  config.weights.symmetric = symmetric;
  config.weights.range = mse ? RangeSearch::kMse : RangeSearch::kMinMax;
  config.gptq.act_order = act_order;
  config.gptq.block_size = 16;
  ThreadPool pool(2);
  const QuantizeResult result = run_method(layer, config, pool);
  const Matrix<std::uint8_t> codes = unpack_rows(grouped(result));
  const Reference reference = optimal_brain_quantization(layer, config);
  std::size_t agreeing_rows = 0;
  for (std::size_t o = 0; o < codes.rows(); ++o) {
    bool same = true, near_tie = false;
    for (std::size_t i = 0; i < codes.cols(); ++i) {
      same = same && codes(o, i) == reference.codes[o][i];
      near_tie = near_tie || reference.margin[o][i] < 1e-3;
    }
    EXPECT_TRUE(same || near_tie || mse) << "row " << o;
    agreeing_rows += same ? 1 : 0;
  }
  EXPECT_GE(agreeing_rows, codes.rows() * (symmetric ? 5 : 9) / 10);
}

INSTANTIATE_TEST_SUITE_P(BitsGroupSymmetricOrder, GptqAgainstReference,
                         testing::Combine(testing::Values(2, 3, 4),
                                          testing::Values(-1, 8, 20, 32),
                                          testing::Bool(), testing::Bool(),
                                          testing::Bool()));

TEST(Gptq, TwoColumnsByHand) {
  // S = [[1, .5], [.5, 1]], damping 0. Grid of [0.6, 1.5] at 2 bits,
  // asymmetric: s = 0.5, z = 0. 0.6 -> code 1 = 0.5, error 0.1; the second
  // weight moves by -0.1 * Hinv01 / Hinv00 = +0.1 * 0.5 to 1.55 -> code 3
  // = 1.5.
  Layer layer{.W = MatrixF({0.6f, 1.5f}, 1, 2)};
  layer.stats.second_moment = MatrixF({1, 0.5f, 0.5f, 1}, 2, 2);
  QuantizeConfig config = gptq_config(2, -1);
  config.gptq.damping_fraction = 0;
  ThreadPool pool(1);
  const QuantizeResult result = run_method(layer, config, pool);
  const Matrix<std::uint8_t> codes = unpack_rows(grouped(result));
  EXPECT_FLOAT_EQ(grouped(result).scales[0], 0.5f);
  EXPECT_EQ(codes(0, 0), 1);
  EXPECT_EQ(codes(0, 1), 3);
  // d = (0.1, 0): d S d^T = 0.01.
  EXPECT_NEAR(result.output_error, 0.01, 1e-7);
}

TEST(Gptq, MovesTheErrorOfOneColumnToTheNext) {
  // 0.7 -> 0.5 leaves 0.2; 1.1 alone rounds to 1, but becomes 1.1 + 0.2 c with
  // correlation c, which for c = 0.9 is 1.28 and rounds to 1.5.
  for (const float correlation : {0.0f, 0.5f, 0.9f}) {
    Layer layer{.W = MatrixF({0.7f, 1.1f, 1.5f}, 1, 3)};
    layer.stats.second_moment =
        MatrixF({1, correlation, 0, correlation, 1, 0, 0, 0, 1}, 3, 3);
    QuantizeConfig config = gptq_config(2, -1);
    config.gptq.damping_fraction = 0;
    ThreadPool pool(1);
    const QuantizeResult result = run_method(layer, config, pool);
    EXPECT_EQ(unpack_rows(grouped(result))(0, 1), correlation < 0.9f ? 2 : 3);
  }
}

TEST(Gptq, BeatsRoundToNearestOnCorrelatedInputs) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(40, 100, 3);
  for (const int bits : {2, 3, 4, 8}) {
    for (const std::int64_t group_size : {-1, 32}) {
      QuantizeConfig config = gptq_config(bits, group_size);
      const double gptq = run_method(layer, config, pool).output_error;
      config.method = "rtn";
      const double rtn = run_method(layer, config, pool).output_error;
      EXPECT_LT(gptq, 0.7 * rtn) << bits << " bits, group " << group_size;
    }
  }
}

TEST(Gptq, ReportsTheErrorOfTheWeightThatItReturns) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(20, 90, 5);
  for (const bool act_order : {false, true}) {
    QuantizeConfig config = gptq_config(3, 16);
    config.gptq.act_order = act_order;
    const QuantizeResult result = run_method(layer, config, pool);
    const double direct =
        output_error(layer.W.view(), dequantize(result.weight).view(),
                     layer.stats.second_moment.view(), pool);
    EXPECT_NEAR(result.output_error, direct, 1e-3 * direct);
  }
}

TEST(Gptq, GivesTheSameBytesAtAnyThreadCount) {
  const Layer layer = correlated_layer(150, 130, 8);
  QuantizeConfig config = gptq_config(4, 32);
  config.gptq.act_order = true;
  ThreadPool one(1), three(3);
  const QuantizeResult a = run_method(layer, config, one);
  const QuantizeResult b = run_method(layer, config, three);
  EXPECT_EQ(grouped(a).codes, grouped(b).codes);
  EXPECT_EQ(grouped(a).scales, grouped(b).scales);
  EXPECT_EQ(grouped(a).zeros, grouped(b).zeros);
  EXPECT_EQ(a.output_error, b.output_error);
}

TEST(Gptq, ZeroesColumnsThatCalibrationNeverTouched) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(8, 24, 2);
  for (std::size_t t = 0; t < layer.X.rows(); ++t) {
    layer.X(t, 5) = layer.X(t, 17) = 0;
  }
  layer.stats = stats_of(layer.X);
  QuantizeConfig config = gptq_config(4, 8);
  QuantizeResult result = run_method(layer, config, pool);
  MatrixF W = dequantize(result.weight);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    EXPECT_EQ(W(o, 5), 0.0f);
    EXPECT_EQ(W(o, 17), 0.0f);
  }
  ASSERT_FALSE(result.notes.empty());
  EXPECT_NE(result.notes[0].find("2 input"), std::string::npos);

  config.gptq.dead_columns = DeadColumns::kRound;
  result = run_method(layer, config, pool);
  W = dequantize(result.weight);
  const GroupedIntWeight& packed = grouped(result);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    EXPECT_LE(std::abs(W(o, 5) - layer.W(o, 5)),
              packed.scales[o * packed.groups()] * 0.5001f);
  }
}

TEST(Gptq, StoresGroupIndicesOnlyWhenGroupsAreNotInPlace) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(8, 40, 2);
  QuantizeConfig config = gptq_config(4, 16);
  EXPECT_TRUE(grouped(run_method(layer, config, pool)).g_idx.empty());
  config.gptq.group_aware_order = true;
  EXPECT_TRUE(grouped(run_method(layer, config, pool)).g_idx.empty());
  config.gptq.group_aware_order = false;
  config.gptq.act_order = true;
  EXPECT_TRUE(grouped(run_method(layer, config, pool)).g_idx.empty());
  config.gptq.static_groups = false;
  const QuantizeResult result = run_method(layer, config, pool);
  ASSERT_EQ(grouped(result).g_idx.size(), 40u);
  std::vector<std::size_t> members(3);
  for (const std::uint32_t g : grouped(result).g_idx) ++members.at(g);
  EXPECT_EQ(members, (std::vector<std::size_t>{16, 16, 8}));
  check(result.weight, "layer");
}

TEST(Gptq, EveryOrderDecodesToSomethingBetterThanRoundToNearest) {
  ThreadPool pool(2);
  const Layer layer = correlated_layer(32, 101, 21);
  QuantizeConfig config = gptq_config(3, 24);
  config.method = "rtn";
  const double rtn = run_method(layer, config, pool).output_error;
  config.method = "gptq";
  for (const int order : {0, 1, 2, 3, 4}) {
    config.gptq.act_order = order == 1 || order == 2;
    config.gptq.static_groups = order != 2;
    config.gptq.group_aware_order = order == 3;
    config.gptq.stale_grid = order == 4;
    const QuantizeResult result = run_method(layer, config, pool);
    check(result.weight, "layer");
    const double direct =
        output_error(layer.W.view(), dequantize(result.weight).view(),
                     layer.stats.second_moment.view(), pool);
    EXPECT_LT(direct, 0.7 * rtn) << "order " << order;
  }
}

TEST(Gptq, MaskedWeightsStayZeroAndTheOthersPayForThem) {
  ThreadPool pool(2);
  Layer layer = correlated_layer(24, 80, 41);
  Matrix<std::uint8_t> mask(24, 80);
  for (std::size_t k = 0; k < mask.size(); ++k) {
    mask.data()[k] = k % 4 < 2 ? 1 : 0;
  }
  for (const bool act_order : {false, true}) {
    QuantizeConfig config = gptq_config(4, 16);
    config.gptq.act_order = act_order;
    const auto error = [&](const MatrixF& W) {
      const QuantizeResult result = quantize_gptq({.W = W.view(),
                                                   .mask = mask.view(),
                                                   .stats = &layer.stats,
                                                   .config = &config,
                                                   .pool = &pool,
                                                   .name = "layer"});
      const MatrixF Q = dequantize(result.weight);
      for (std::size_t k = 0; k < mask.size(); ++k) {
        EXPECT_TRUE(mask.data()[k] == 1 || Q.data()[k] == 0.0f);
      }
      return output_error(layer.W.view(), Q.view(),
                          layer.stats.second_moment.view(), pool);
    };
    MatrixF zeroed = layer.W;
    for (std::size_t k = 0; k < mask.size(); ++k) {
      if (mask.data()[k] == 0) zeroed.data()[k] = 0;
    }
    // From the zeroed weight nobody knows what was lost.
    EXPECT_LT(error(layer.W), 0.7 * error(zeroed));
  }
}

TEST(Gptq, StaleGridsDifferOnlyWhereGroupsAreShorterThanBatches) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(16, 64, 4);
  for (const std::int64_t group_size : {16, 64}) {
    QuantizeConfig config = gptq_config(3, group_size);
    config.gptq.block_size = 32;
    const QuantizeResult fresh = run_method(layer, config, pool);
    config.gptq.stale_grid = true;
    const QuantizeResult stale = run_method(layer, config, pool);
    EXPECT_EQ(grouped(fresh).scales == grouped(stale).scales, group_size == 64);
  }
}

TEST(Gptq, AGroupLongerThanABatchIsFittedToUpdatedWeights) {
  // The result must not depend on how columns are batched.
  ThreadPool pool(1);
  const Layer layer = correlated_layer(16, 96, 14);
  for (const std::int64_t group_size : {12, 48, 37}) {
    QuantizeConfig config = gptq_config(4, group_size);
    config.gptq.block_size = 1000;
    const QuantizeResult whole = run_method(layer, config, pool);
    config.gptq.block_size = 16;
    const QuantizeResult batched = run_method(layer, config, pool);
    for (std::size_t k = 0; k < grouped(whole).scales.size(); ++k) {
      EXPECT_NEAR(grouped(whole).scales[k], grouped(batched).scales[k],
                  1e-4f * grouped(whole).scales[k]);
    }
  }
}

TEST(Gptq, RaisesTheDampingAndSaysSo) {
  ThreadPool pool(1);
  Layer layer = correlated_layer(4, 12, 6);
  // Not positive semidefinite: a correlation of 1.2.
  layer.stats.second_moment = MatrixF(12, 12);
  for (std::size_t i = 0; i < 12; ++i) layer.stats.second_moment(i, i) = 1;
  layer.stats.second_moment(0, 1) = layer.stats.second_moment(1, 0) = 1.2f;
  QuantizeConfig config = gptq_config(4, -1);
  const QuantizeResult result = run_method(layer, config, pool);
  EXPECT_GT(result.damping_fraction, 0.2 - 1e-9);
  EXPECT_LT(result.damping_fraction, 0.23);
  ASSERT_EQ(result.notes.size(), 1u);
  EXPECT_NE(result.notes[0].find("damping raised"), std::string::npos);

  config.gptq.damping_policy = DampingPolicy::kFail;
  try {
    run_method(layer, config, pool);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNumeric);
    EXPECT_EQ(std::string(error.what()).rfind("layer", 0), 0u) << error.what();
  }
}

TEST(Gptq, RefusesWhatItCannotUse) {
  ThreadPool pool(1);
  const auto code_of = [&](const Layer& layer, const QuantizeConfig& config) {
    try {
      run_method(layer, config, pool);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kIo;  // none
  };
  const Layer good = correlated_layer(4, 12, 6);
  EXPECT_EQ(code_of(good, gptq_config(1, -1)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(good, gptq_config(9, -1)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(good, gptq_config(4, -2)), ErrorCode::kInvalidArgument);
  Layer layer = good;
  layer.stats.second_moment = {};
  EXPECT_EQ(code_of(layer, gptq_config(4, -1)), ErrorCode::kInvalidArgument);
  layer = good;
  layer.W(1, 1) = std::nanf("");
  EXPECT_EQ(code_of(layer, gptq_config(4, -1)), ErrorCode::kInvalidInput);
  layer = good;
  layer.stats.second_moment(2, 1) = std::nanf("");
  EXPECT_EQ(code_of(layer, gptq_config(4, -1)), ErrorCode::kNumeric);
  layer.stats.second_moment = MatrixF(12, 12);
  EXPECT_EQ(code_of(layer, gptq_config(4, -1)), ErrorCode::kNumeric);
}

TEST(Gptq, DegenerateWeightsGiveFiniteValues) {
  ThreadPool pool(1);
  for (const float value : {0.0f, 1.0f, -3.0f, 1e-42f, 1e30f}) {
    Layer layer = correlated_layer(3, 20, 9);
    for (float& w : layer.W.data()) w = value;
    for (const bool symmetric : {false, true}) {
      QuantizeConfig config = gptq_config(4, 7);
      config.weights.symmetric = symmetric;
      const QuantizeResult result = run_method(layer, config, pool);
      check(result.weight, "layer");
      const MatrixF W = dequantize(result.weight);
      for (const float w : W.data()) {
        EXPECT_TRUE(std::isfinite(w)) << value;
        EXPECT_TRUE(value != 0.0f || w == 0.0f) << w;
      }
    }
  }
  const Layer one = correlated_layer(1, 1, 9);
  check(run_method(one, gptq_config(2, 128), pool).weight, "one");
}

TEST(Gptq, WholeTensorAndInt8KeepTheirForms) {
  ThreadPool pool(1);
  const Layer layer = correlated_layer(6, 20, 10);
  const QuantizeResult tensor = run_method(layer, gptq_config(4, 0), pool);
  for (const float s : grouped(tensor).scales) {
    EXPECT_EQ(s, grouped(tensor).scales[0]);
  }
  QuantizeConfig config = gptq_config(8, -1);
  config.input.kind = ActivationQuant::Kind::kInt;
  for (const bool symmetric : {true, false}) {
    config.weights.symmetric = symmetric;
    const QuantizeResult w8a8 = run_method(layer, config, pool);
    const auto& int8 = std::get<Int8Weight>(w8a8.weight);
    EXPECT_EQ(int8.zeros.empty(), symmetric);
    check(w8a8.weight, "layer");
    const double direct =
        output_error(layer.W.view(), dequantize(w8a8.weight).view(),
                     layer.stats.second_moment.view(), pool);
    EXPECT_NEAR(direct, w8a8.output_error, 1e-2 * direct);
  }
}

TEST(Gptq, AsymmetricCalibrationComesCloserToTheFullModel) {
  // The compressed predecessors feed x, the full model x_full = x + noise.
  ThreadPool pool(2);
  Layer layer = correlated_layer(24, 64, 31);
  const MatrixF noise =
      testing_support::random_matrix(layer.X.rows(), layer.X.cols(), 77);
  const std::size_t n = layer.X.rows(), in = layer.X.cols();
  MatrixF X_full = layer.X;
  for (std::size_t t = 0; t < n; ++t) {
    for (std::size_t i = 0; i < in; ++i) {
      // Shrunken inputs: systematically different, as after quantization.
      X_full(t, i) = 1.1f * layer.X(t, i) + 0.05f * noise(t, i);
    }
  }
  layer.stats.reference_moment = MatrixF(in, in);
  for (std::size_t i = 0; i < in; ++i) {
    for (std::size_t j = 0; j < in; ++j) {
      double sum = 0;
      for (std::size_t t = 0; t < n; ++t) {
        sum += static_cast<double>(X_full(t, i) - layer.X(t, i)) *
               static_cast<double>(layer.X(t, j));
      }
      layer.stats.reference_moment(i, j) =
          static_cast<float>(sum / static_cast<double>(n));
    }
  }
  const auto error = [&](const QuantizeResult& result) {
    const MatrixF Q = dequantize(result.weight);
    double sum = 0;
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t o = 0; o < Q.rows(); ++o) {
        double y = 0;
        for (std::size_t i = 0; i < in; ++i) {
          y += static_cast<double>(Q(o, i) * layer.X(t, i)) -
               static_cast<double>(layer.W(o, i) * X_full(t, i));
        }
        sum += y * y;
      }
    }
    return sum;
  };
  QuantizeConfig config = gptq_config(4, 32);
  const double plain = error(run_method(layer, config, pool));
  config.gptq.asymmetric_calibration = true;
  const double quarter = error(run_method(layer, config, pool));
  config.gptq.gptaq_alpha = 1;
  const double full = error(run_method(layer, config, pool));
  EXPECT_LT(quarter, 0.9 * plain);
  EXPECT_LT(full, quarter);
}

}  // namespace
}  // namespace llmpress

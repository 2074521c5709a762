#include "quantizers/ggml_gptq_rounding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "quantizers/ggml_rounding.h"
#include "quantizers/gptq.h"
#include "quantizers/method.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

// Inputs that follow each other, of uneven size.
InputStats uneven_stats(std::size_t in) {
  const MatrixF X = random_matrix(2 * in, in, 17);
  InputStats stats;
  stats.second_moment = MatrixF(in, in);
  stats.square_mean.assign(in, 0);
  const auto size = [](std::size_t i) { return i % 16 == 0 ? 6.0f : 1.0f; };
  for (std::size_t t = 0; t < X.rows(); ++t) {
    for (std::size_t i = 0; i < in; ++i) {
      const float x = size(i) * (X(t, i) + (i > 0 ? 0.7f * X(t, i - 1) : 0.0f));
      for (std::size_t j = 0; j <= i; ++j) {
        const float y =
            size(j) * (X(t, j) + (j > 0 ? 0.7f * X(t, j - 1) : 0.0f));
        stats.second_moment(i, j) += x * y / static_cast<float>(X.rows());
        stats.second_moment(j, i) = stats.second_moment(i, j);
      }
    }
  }
  for (std::size_t i = 0; i < in; ++i) {
    stats.square_mean[i] = stats.second_moment(i, i);
  }
  return stats;
}

class GgmlGptq : public ::testing::Test {
 protected:
  QuantizeResult quantize(const char* method, GgmlType type, const MatrixF& W) {
    QuantizeConfig config{.method = method};
    config.weights.type = WeightType::kGgml;
    config.weights.ggml_type = type;
    return quantize_weight({.W = W.view(),
                            .stats = &stats_,
                            .config = &config,
                            .pool = &pool_,
                            .name = "l"});
  }

  InputStats stats_ = uneven_stats(256);
  ThreadPool pool_{2};
};

TEST_F(GgmlGptq, BeatsImportanceWhichBeatsTheNearest) {
  const MatrixF W = random_matrix(24, 256, 3);
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ2_K, GgmlType::kQ3_K,
        GgmlType::kQ4_K, GgmlType::kIq4Nl, GgmlType::kIq4Xs, GgmlType::kIq1S,
        GgmlType::kIq1M, GgmlType::kIq2Xxs, GgmlType::kIq2Xs, GgmlType::kIq2S,
        GgmlType::kIq3Xxs, GgmlType::kIq3S}) {
    const double nearest = quantize("rtn", type, W).output_error;
    const double important = quantize("imatrix", type, W).output_error;
    const double solved = quantize("gptq", type, W).output_error;
    EXPECT_LT(important, nearest) << facts(type).name;
    EXPECT_LT(solved, important) << facts(type).name;
  }
}

TEST_F(GgmlGptq, ReportsTheErrorOfWhatIsStored) {
  const MatrixF W = random_matrix(8, 256, 4);
  const QuantizeResult result = quantize("gptq", GgmlType::kQ4_K, W);
  const double measured =
      output_error(W.view(), dequantize(result.weight).view(),
                   stats_.second_moment.view(), pool_);
  EXPECT_NEAR(result.output_error, measured, 2e-3 * measured);
  check(result.weight, "w");
}

TEST_F(GgmlGptq, FallsBackWhereNoBlocksFitAndSaysSo) {
  stats_ = uneven_stats(96);
  const QuantizeResult result =
      quantize("gptq", GgmlType::kQ4_K, random_matrix(4, 96, 1));
  EXPECT_EQ(describe(result.weight), "q5_0");
  EXPECT_FALSE(result.notes.empty());
  stats_ = uneven_stats(20);
  EXPECT_EQ(
      describe(
          quantize("gptq", GgmlType::kQ4_K, random_matrix(4, 20, 1)).weight),
      "f16");
}

TEST(NearestBlockCode, IsTheNearestOfAllCodes) {
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (f.plain || !f.decodes) continue;
    const GgmlLayout& l = layout(f.type);
    const float minimum = l.minima ? 1.25f : 0.0f;
    for (const float scale : {0.5f, -0.25f}) {
      for (float w = -9; w < 9; w += 0.37f) {
        const auto error = [&](int code) {
          return std::fabs(scale * static_cast<float>(value_of(
                                       l, static_cast<std::uint8_t>(code))) -
                           minimum - w);
        };
        float best = error(0);
        for (int code = 1; code < l.levels; ++code) {
          best = std::min(best, error(code));
        }
        EXPECT_EQ(error(nearest_block_code(l, scale, minimum, w)), best)
            << f.name << " " << scale << " " << w;
      }
    }
  }
}

}  // namespace
}  // namespace llmpress

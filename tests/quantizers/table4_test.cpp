#include "quantizers/table4.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/table4.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/golden_input.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::golden_input;
using testing_support::hex;
using testing_support::random_matrix;

WeightScheme table(WeightType type, bool double_quant = false) {
  return {.type = type, .group_size = 64, .double_quant = double_quant};
}

TEST(Table4, WritesTheGoldenBytes) {
  ThreadPool pool(1);
  const MatrixF W(golden_input(64), 8, 8);
  const Table4Weight nf4 =
      quantize_table4(W.view(), table(WeightType::kNf4), pool);
  EXPECT_EQ(nf4.absmax, (std::vector<float>{1.5625f}));
  EXPECT_EQ(hex(nf4.codes),
            "17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e1");
  const Table4Weight fp4 =
      quantize_table4(W.view(), table(WeightType::kFp4), pool);
  EXPECT_EQ(hex(fp4.codes),
            "a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a");
}

TEST(Table4, EveryTableValueKeepsItsCode) {
  ThreadPool pool(1);
  for (const WeightType type : {WeightType::kNf4, WeightType::kFp4}) {
    const auto values = table4_values(
        type == WeightType::kNf4 ? Table4Kind::kNf4 : Table4Kind::kFp4);
    MatrixF W(1, 16);
    for (std::size_t c = 0; c < 16; ++c) W(0, c) = 3.0f * values[c];
    const Table4Weight q = quantize_table4(W.view(), table(type), pool);
    const MatrixF decoded = dequantize(q);
    EXPECT_TRUE(std::ranges::equal(decoded.data(), W.data()));
  }
}

TEST(Table4, DecodesToTheNearestTableValue) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(7, 45, 3);  // 315 weights: a short last block
  for (const WeightType type : {WeightType::kNf4, WeightType::kFp4}) {
    for (const bool nested : {false, true}) {
      const Table4Weight q =
          quantize_table4(W.view(), table(type, nested), pool);
      check(PackedWeight(q), "table");
      const MatrixF decoded = dequantize(q);
      const auto values = table4_values(q.kind);
      for (std::size_t k = 0; k < W.size(); ++k) {
        // The absmax that a reader finds.
        const float a = nested ? nested_absmax_map()[q.absmax_codes[k / 64]] *
                                         q.nested_absmax[0] +
                                     q.nested_offset
                               : q.absmax[k / 64];
        float nearest = 1e30f;
        for (const float v : values) {
          nearest = std::min(nearest, std::abs(v * a - W.data()[k]));
        }
        EXPECT_NEAR(std::abs(decoded.data()[k] - W.data()[k]), nearest, 1e-6f);
      }
    }
  }
}

TEST(Table4, DoubleQuantizationCostsLittle) {
  // 8 bits on absmax: its error is at most half the largest gap of the map.
  ThreadPool pool(1);
  const MatrixF W = random_matrix(64, 512, 9);
  const Table4Weight plain =
      quantize_table4(W.view(), table(WeightType::kNf4), pool);
  const Table4Weight nested =
      quantize_table4(W.view(), table(WeightType::kNf4, true), pool);
  const double e = output_error(W.view(), dequantize(plain).view(), {}, pool);
  const double n = output_error(W.view(), dequantize(nested).view(), {}, pool);
  EXPECT_LT(n, 1.02 * e);
  EXPECT_LT(stored_bytes(nested), stored_bytes(plain));
}

TEST(Table4, DegenerateBlocksDecodeToZeroOrThemselves) {
  ThreadPool pool(1);
  for (const float value : {0.0f, 2.5f, -1e-40f, 1e38f}) {
    for (const bool nested : {false, true}) {
      MatrixF W(3, 50);
      for (float& w : W.data()) w = value;
      const PackedWeight q =
          quantize_table4(W.view(), table(WeightType::kNf4, nested), pool);
      check(q, "table");
      const MatrixF decoded = dequantize(q);
      for (const float w : decoded.data()) {
        EXPECT_NEAR(w, value, 1e-6f * std::abs(value)) << nested;
      }
    }
  }
}

TEST(Table4, BlocksCanBeRowsOrTheWholeTensor) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(4, 30, 9);
  WeightScheme scheme = table(WeightType::kNf4);
  scheme.group_size = -1;
  EXPECT_EQ(quantize_table4(W.view(), scheme, pool).absmax.size(), 4u);
  scheme.group_size = 0;
  EXPECT_EQ(quantize_table4(W.view(), scheme, pool).absmax.size(), 1u);
}

TEST(Table4, TheMethodRefusesOtherTypes) {
  ThreadPool pool(1);
  const auto layer = testing_support::correlated_layer(2, 8, 1);
  EXPECT_THROW(testing_support::run_method(layer, {.method = "nf4"}, pool),
               Error);
}

}  // namespace
}  // namespace llmpress

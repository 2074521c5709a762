#include "quantizers/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "compress/core/float_formats.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::random_matrix;

WeightScheme e4m3(std::int64_t group_size) {
  return {.type = WeightType::kFp8E4M3,
          .group_size = group_size,
          .scale_dtype = DType::kF32};
}

TEST(Fp8, MatchesHandComputedCodes) {
  // s = 896 / 448 = 2: 448 -> 0x7e, -1.5 -> 0xbc, 1.0625 -> 0x38 (tie to even).
  const MatrixF W({896, -3, 2.125f}, 1, 3);
  ThreadPool pool(1);
  const Fp8Weight q = quantize_fp8(W.view(), e4m3(-1), pool);
  EXPECT_EQ(q.scales, (std::vector<float>{2}));
  EXPECT_EQ(q.codes, (std::vector<std::uint8_t>{0x7e, 0xbc, 0x38}));
}

TEST(Fp8, NoFiniteWeightBecomesNaN) {
  ThreadPool pool(1);
  for (const float w : {0.0f, 1e-42f, 1.0f, 1e30f, 1e38f}) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const WeightType type :
           {WeightType::kFp8E4M3, WeightType::kFp8E5M2}) {
        MatrixF W({w, -w, 0.3f * w, 0}, 2, 2);
        const PackedWeight q = quantize_fp8(
            W.view(), {.type = type, .group_size = 0, .scale_dtype = dtype},
            pool);
        check(q, "fp8");
        const MatrixF decoded = dequantize(q);
        for (const float x : decoded.data()) EXPECT_TRUE(std::isfinite(x)) << w;
      }
    }
  }
}

// Rows of any length, on either side of every border: numbers that are rounded to
// zero, to subnormals, to even and to the largest.
TEST(Fp8, CodesAreThoseOfTheirNumbersOneByOne) {
  Rng rng(5);
  ThreadPool pool(1);
  for (const std::size_t width : {1u, 7u, 8u, 9u, 31u, 64u, 203u}) {
    for (const WeightType type : {WeightType::kFp8E4M3, WeightType::kFp8E5M2}) {
      WeightScheme scheme = e4m3(-1);
      scheme.type = type;
      MatrixF W(40, width);
      for (float& w : W.data()) {
        const auto exponent = static_cast<int>(rng.below(60)) - 40;
        // Few bits, so that ties are common.
        w = std::ldexp(static_cast<float>(rng.below(64)), exponent) *
            (rng.below(2) == 0 ? -1.0f : 1.0f);
      }
      for (std::size_t r = 0; r < W.rows(); ++r) W(r, r % width) = 0x1p26f;
      const Fp8Weight q = quantize_fp8(W.view(), scheme, pool);
      for (std::size_t r = 0; r < W.rows(); ++r) {
        for (std::size_t c = 0; c < width; ++c) {
          const float x = W(r, c) / q.scales[r];
          ASSERT_EQ(q.codes[r * width + c], type == WeightType::kFp8E4M3
                                                ? e4m3_from_float(x)
                                                : e5m2_from_float(x))
              << x;
        }
      }
    }
  }
}

using Case = std::tuple<std::int64_t, std::size_t, WeightType>;
class Fp8Blocks : public testing::TestWithParam<Case> {};

TEST_P(Fp8Blocks, DecodeToWithinHalfAnUlp) {
  const auto [group_size, block, type] = GetParam();
  const MatrixF W = random_matrix(37, 53, 3);
  WeightScheme scheme = e4m3(group_size);
  scheme.type = type;
  scheme.block_rows = scheme.block_cols = block;
  ThreadPool pool(2);
  const Fp8Weight q = quantize_fp8(W.view(), scheme, pool);
  check(PackedWeight(q), "fp8");
  const MatrixF decoded = dequantize(q);
  // Relative half ulp: 2^-4 with 3 bits of mantissa, 2^-3 with 2; below the
  // normal range half a subnormal step of the scale.
  const bool is_e4m3 = type == WeightType::kFp8E4M3;
  const float relative = is_e4m3 ? 0x1p-4f : 0x1p-3f;
  const float step = is_e4m3 ? 0x1p-9f : 0x1p-16f;
  const std::size_t across = (53 + q.block_cols - 1) / q.block_cols;
  for (std::size_t o = 0; o < 37; ++o) {
    for (std::size_t i = 0; i < 53; ++i) {
      const float s = q.scales[o / q.block_rows * across + i / q.block_cols];
      const float bound =
          std::max(relative * std::abs(W(o, i)), 0.5f * step * s);
      EXPECT_LE(std::abs(decoded(o, i) - W(o, i)), bound * 1.001f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Fp8Blocks,
    testing::Combine(testing::Values(-1, 0, 16), testing::Values(0, 16, 128),
                     testing::Values(WeightType::kFp8E4M3,
                                     WeightType::kFp8E5M2)));

TEST(Fp8, SearchedScalesAreNeverWorseInTheirNorm) {
  const MatrixF W = random_matrix(8, 64, 3);
  WeightScheme scheme = e4m3(-1);
  ThreadPool pool(1);
  const auto error = [&] {
    const MatrixF Q = dequantize(quantize_fp8(W.view(), scheme, pool));
    double sum = 0;
    for (std::size_t k = 0; k < W.size(); ++k) {
      sum +=
          std::pow(static_cast<double>(std::abs(Q.data()[k] - W.data()[k])), 2);
    }
    return sum;
  };
  const double plain = error();
  scheme.range = RangeSearch::kMse;
  scheme.mse_norm = 2;
  EXPECT_LT(error(), plain);
}

}  // namespace
}  // namespace llmpress

#include "quantizers/micro_fp4.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/float_formats.h"
#include "quantizers/method.h"
#include "quantizers/weight_error.h"
#include "tests/quantizers/golden_input.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::golden_input;
using testing_support::hex;
using testing_support::random_matrix;

constexpr WeightScheme kMx{.type = WeightType::kMxfp4};
constexpr WeightScheme kNv{.type = WeightType::kNvfp4};

TEST(MicroFp4, WritesTheGoldenBytes) {
  ThreadPool pool(1);
  const MatrixF mx_input(golden_input(32), 1, 32);
  const MicroFp4Weight mx = quantize_micro_fp4(mx_input.view(), kMx, pool);
  EXPECT_EQ(hex(mx.scales), "7d");
  EXPECT_EQ(hex(mx.codes), "8ee6724cafe6603dc7f56a1ed7f45b9e");
  const MatrixF nv_input(golden_input(64), 1, 64);
  const MicroFp4Weight nv = quantize_micro_fp4(nv_input.view(), kNv, pool);
  EXPECT_EQ(nv.global_scale, 1720.32f);
  EXPECT_EQ(hex(nv.scales), "7d7e7d7e");
  EXPECT_EQ(hex(nv.codes),
            "9fe6724cafe6603dc7f5691ed6f35b9ee6724dbfe5603dc7f46a1ed6735b9ee6");
}

TEST(MicroFp4, RoundsTheExponentUpFromAMantissaOfSevenFourths) {
  ThreadPool pool(1);
  for (const auto& [largest, exponent] :
       {std::pair{1.74f, 125}, {1.75f, 126}, {1.0f, 125}, {4.0f, 127}}) {
    MatrixF W(1, 32);
    W(0, 3) = -largest;
    EXPECT_EQ(quantize_micro_fp4(W.view(), kMx, pool).scales[0], exponent)
        << largest;
  }
}

TEST(MicroFp4, DecodesToTheNearestValueUnlessItSaturates) {
  ThreadPool pool(2);
  const MatrixF W = random_matrix(5, 77, 3);  // ragged last group
  for (const WeightScheme& scheme : {kMx, kNv}) {
    const MicroFp4Weight q = quantize_micro_fp4(W.view(), scheme, pool);
    check(PackedWeight(q), "micro");
    const MatrixF decoded = dequantize(q);
    const std::size_t groups = (77 + q.group() - 1) / q.group();
    for (std::size_t o = 0; o < 5; ++o) {
      for (std::size_t i = 0; i < 77; ++i) {
        const std::uint8_t octet = q.scales[o * groups + i / q.group()];
        const float s = scheme.type == WeightType::kMxfp4
                            ? e8m0_to_float(octet)
                            : e4m3_to_float(octet) / q.global_scale;
        float nearest = 1e30f;
        for (std::uint8_t code = 0; code < 16; ++code) {
          nearest =
              std::min(nearest, std::abs(e2m1_to_float(code) * s - W(o, i)));
        }
        EXPECT_NEAR(std::abs(decoded(o, i) - W(o, i)), nearest, 1e-6f);
      }
    }
  }
}

TEST(MicroFp4, SearchedScalesLowerTheError) {
  ThreadPool pool(1);
  const MatrixF W = random_matrix(16, 128, 5);
  for (WeightScheme scheme : {kMx, kNv}) {
    const auto error = [&] {
      const MicroFp4Weight q = quantize_micro_fp4(W.view(), scheme, pool);
      check(PackedWeight(q), "micro");
      return output_error(W.view(), dequantize(q).view(), {}, pool);
    };
    const double plain = error();
    scheme.range = RangeSearch::kMse;
    EXPECT_LT(error(), plain);
  }
}

TEST(MicroFp4, DegenerateGroupsStayFinite) {
  ThreadPool pool(1);
  for (const float value : {0.0f, 3.0f, 1e-42f, -1e38f}) {
    for (const bool lone : {false, true}) {
      for (WeightScheme scheme : {kMx, kNv}) {
        for (const RangeSearch range :
             {RangeSearch::kMinMax, RangeSearch::kMse}) {
          scheme.range = range;
          MatrixF W(2, 40);
          for (float& w : W.data()) w = lone ? 0.0f : value;
          W(0, 1) = value;
          const PackedWeight q = quantize_micro_fp4(W.view(), scheme, pool);
          check(q, "micro");
          const MatrixF decoded = dequantize(q);
          for (std::size_t k = 0; k < W.size(); ++k) {
            EXPECT_NEAR(decoded.data()[k], W.data()[k],
                        0.25f * std::abs(value) + 1e-37f);
          }
        }
      }
    }
  }
}

TEST(MicroFp4, ATinyGroupBesideALargeOneKeepsItsDigits) {
  // (a / 6) g is below the smallest E4M3, 2^-9: the scale is that smallest.
  ThreadPool pool(1);
  MatrixF W(1, 32);
  W(0, 0) = 1;
  for (std::size_t i = 16; i < 32; ++i) W(0, i) = 2e-6f;
  const MatrixF decoded = dequantize(quantize_micro_fp4(W.view(), kNv, pool));
  EXPECT_NEAR(decoded(0, 20), 2e-6f, 5e-7f);
}

}  // namespace
}  // namespace llmpress

#include "compress/core/activation_grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>

namespace llmpress {
namespace {

using Kind = ActivationQuant::Kind;
constexpr std::size_t kRow = 8;
using Rows = std::array<float, 2 * kRow>;

ActivationGrid fit(const ActivationQuant& quant, std::span<const float> x) {
  return fit_activation_grid(quant, *std::ranges::min_element(x),
                             *std::ranges::max_element(x));
}

Rows rounded(const ActivationQuant& quant, const Rows& X) {
  Rows Y{};
  for (std::size_t t = 0; t < 2; ++t) {
    const auto row = std::span(X).subspan(t * kRow, kRow);
    const ActivationGrid grid = quant.range == ActivationQuant::Range::kTensor
                                    ? fit(quant, X)
                                    : fit(quant, row);
    for (std::size_t i = 0; i < kRow; ++i) Y[t * kRow + i] = grid.round(row[i]);
  }
  return Y;
}

struct Golden {
  ActivationQuant quant;
  Rows values;
};

// compute_dynamic_scales_and_zp and fake_quantize of compressed-tensors 0.20
// with torch 2.15, in float32.
TEST(ActivationGrid, RoundsAsCompressedTensorsDoes) {
  const Rows X = {-3.25f, 0.5f,  1.125f, -0.3f, 2.75f, 0.07f, -1.6f, 0.9f,
                  5.5f,   -0.2f, 0.33f,  4.1f,  1.7f,  0.0f,  2.9f,  -0.6f};
  constexpr auto kTensor = ActivationQuant::Range::kTensor;
  const std::array<Golden, 6> table{{
      {{.kind = Kind::kInt},
       {-3.26274514f, 0.509803951f, 1.12156868f, -0.305882365f, 2.75294113f,
        0.0764705911f, -1.60588241f, 0.892156899f, 5.4784317f, -0.215686277f,
        0.345098048f, 4.09803915f, 1.68235302f, 0.f, 2.89019608f,
        -0.603921592f}},
      {{.kind = Kind::kInt, .symmetric = false},
       {-3.24705887f, 0.494117647f, 1.12941182f, -0.305882365f, 2.75294113f,
        0.0705882385f, -1.60000002f, 0.894117653f, 5.50196075f, -0.191372544f,
        0.334901959f, 4.09058809f, 1.69843137f, 0.f, 2.89450979f,
        -0.59803921f}},
      {{.kind = Kind::kInt, .bits = 4},
       {-3.4666667f, 0.433333337f, 1.29999995f, -0.433333337f, 2.5999999f, 0.f,
        -1.73333335f, 0.866666675f, 5.13333321f, -0.f, 0.f, 4.4000001f,
        1.4666667f, 0.f, 2.9333334f, -0.733333349f}},
      {{.kind = Kind::kInt, .bits = 4, .range = kTensor},
       {-2.9333334f, 0.733333349f, 1.4666667f, -0.f, 2.9333334f, 0.f,
        -1.4666667f, 0.733333349f, 5.13333321f, -0.f, 0.f, 4.4000001f,
        1.4666667f, 0.f, 2.9333334f, -0.733333349f}},
      {{.kind = Kind::kInt, .bits = 4, .symmetric = false},
       {-3.20000005f, 0.400000006f, 1.20000005f, -0.400000006f, 2.79999995f,
        0.f, -1.60000002f, 0.800000012f, 5.69333315f, 0.f, 0.406666666f,
        4.0666666f, 1.62666667f, 0.f, 2.84666657f, -0.406666666f}},
      {{.kind = Kind::kFp8},
       {-3.25f, 0.522321403f, 1.16071427f, -0.290178567f, 2.78571415f,
        0.0725446418f, -1.625f, 0.928571403f, 5.5f, -0.196428567f, 0.319196433f,
        3.92857122f, 1.76785707f, 0.f, 2.94642854f, -0.589285731f}},
  }};
  for (const Golden& golden : table) {
    EXPECT_EQ(rounded(golden.quant, X), golden.values)
        << golden.quant.bits << " bits, symmetric " << golden.quant.symmetric;
  }
}

TEST(ActivationGrid, IsNamedForReports) {
  using Range = ActivationQuant::Range;
  EXPECT_EQ(describe_rounding({}), "");
  EXPECT_EQ(describe_rounding({.kind = Kind::kInt}), "int8 token");
  EXPECT_EQ(describe_rounding({.kind = Kind::kInt,
                               .bits = 4,
                               .range = Range::kStatic,
                               .symmetric = false}),
            "int4 static asym");
  EXPECT_EQ(
      describe_rounding(
          {.kind = Kind::kFp8, .range = Range::kGroup, .group_size = 128}),
      "fp8 g128");
}

TEST(ActivationGrid, LlmInt8HasStepsOfTheLargestMagnitudeBy127) {
  const ActivationQuant own{.kind = Kind::kInt, .outlier_threshold = 6};
  EXPECT_EQ(fit_activation_grid(own, -2.54f, 1).scale, 2.54f / 127);
  EXPECT_EQ(fit_activation_grid({.kind = Kind::kInt}, -2.54f, 1).scale,
            2.54f / 127.5f);
}

TEST(ActivationGrid, TheZeroOfAGridOfOneSideIsAnEndOfIt) {
  const ActivationQuant quant{.kind = Kind::kInt, .symmetric = false};
  EXPECT_EQ(fit_activation_grid(quant, 1, 2).zero, -128);
  EXPECT_EQ(fit_activation_grid(quant, -2, -1).zero, 127);
  EXPECT_EQ(fit_activation_grid(quant, -3e38f, 3e38f).round(0), 0);
}

}  // namespace
}  // namespace llmpress

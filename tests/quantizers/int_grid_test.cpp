#include "quantizers/int_grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/float_formats.h"
#include "quantizers/grid_error.h"
#include "tests/quantizers/golden_input.h"
#include "tests/quantizers/layer.h"

namespace llmpress {
namespace {

using testing_support::golden_input;
using testing_support::random_matrix;
using Codes = std::vector<std::uint8_t>;

WeightScheme scheme_of(int bits, bool symmetric,
                       DType scale_dtype = DType::kF32) {
  return {.bits = bits, .symmetric = symmetric, .scale_dtype = scale_dtype};
}

Codes encode(const std::vector<float>& w, const IntGrid& grid, int bits) {
  Codes codes(w.size());
  encode_int(w, grid, bits, codes);
  return codes;
}

float decode(const IntGrid& grid, std::uint8_t code) {
  return grid.scale * static_cast<float>(int{code} - int{grid.zero});
}

// sum |w' - w|^p as it is defined.
double error_of(const std::vector<float>& w, const IntGrid& grid, int bits,
                double p) {
  const Codes codes = encode(w, grid, bits);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    sum += std::pow(
        std::abs(static_cast<double>(decode(grid, codes[i]) - w[i])), p);
  }
  return sum;
}

TEST(IntGrid, MatchesHandComputedGridsAndCodes) {
  // [-1, 2] at 2 bits: s = 1, z = 1.
  const std::vector<float> w = {-1, 0, 1.2f, 2};
  IntGrid grid = fit_int_grid(w, scheme_of(2, false));
  EXPECT_EQ(grid.scale, 1.0f);
  EXPECT_EQ(grid.zero, 1);
  EXPECT_EQ(encode(w, grid, 2), (Codes{0, 1, 2, 3}));
  // Symmetric: s = 2 * 2 / 3, z = 2; 2 / s = 1.5 rounds to 2, clamped to 3 - 2.
  grid = fit_int_grid(w, scheme_of(2, true));
  EXPECT_FLOAT_EQ(grid.scale, 4.0f / 3);
  EXPECT_EQ(grid.zero, 2);
  EXPECT_EQ(encode(w, grid, 2), (Codes{1, 2, 3, 3}));
}

TEST(IntGrid, MatchesTheReferenceQuantizerOnTheGoldenInput) {
  const std::vector<float> x = golden_input(32);
  IntGrid grid = fit_int_grid(x, scheme_of(4, true));
  EXPECT_EQ(grid.scale, 0.2083333283662796f);
  EXPECT_EQ(grid.zero, 8);
  EXPECT_EQ(encode(x, grid, 4),
            (Codes{2,  8, 13, 4, 9, 15, 5, 11, 1,  7, 12, 3, 8, 14, 4, 10,
                   15, 6, 11, 2, 7, 13, 3, 9,  14, 5, 10, 0, 6, 12, 2, 8}));
  grid = fit_int_grid(x, scheme_of(4, false));
  EXPECT_EQ(grid.scale, 0.20416666567325592f);
  EXPECT_EQ(grid.zero, 8);
  EXPECT_EQ(encode(x, grid, 4),
            (Codes{2,  8, 13, 4, 9, 15, 5, 11, 1,  7, 12, 2, 8, 14, 4, 10,
                   15, 6, 11, 1, 7, 13, 3, 9,  14, 4, 10, 0, 6, 12, 2, 8}));
}

TEST(IntGrid, RoundsHalfToEven) {
  const IntGrid grid{.scale = 1, .zero = 0};
  EXPECT_EQ(encode({0.5f, 1.5f, 2.5f, 3.5f, 4.500001f}, grid, 4),
            (Codes{0, 2, 2, 4, 5}));
}

TEST(IntGrid, FitsCodesToTheScaleAsStored) {
  // 127.5 scales of 0.7 / 127.5: the f16 next to it is off by up to 2^-11,
  // which over 127.5 steps is 0.06 of one.
  const std::vector<float> w = {-0.61f, 0.7f, 0.2f, -0.33f};
  for (const bool symmetric : {false, true}) {
    const IntGrid grid = fit_int_grid(w, scheme_of(8, symmetric, DType::kF16));
    EXPECT_EQ(grid.scale, f16_to_float(f16_from_float(grid.scale)));
    const Codes codes = encode(w, grid, 8);
    for (std::size_t i = 0; i < w.size(); ++i) {
      EXPECT_LE(std::abs(decode(grid, codes[i]) - w[i]), grid.scale * 0.57f);
    }
  }
}

TEST(IntGrid, KeepsScalesThatF16CannotHoldFiniteAndPositive) {
  // 2^-14 is the smallest normal f16, 2^-24 the smallest of all.
  EXPECT_EQ(stored_scale(1e-30f, DType::kF16), 0x1p-24f);
  EXPECT_EQ(stored_scale(1.5f * 0x1p-24f, DType::kF16), 0x1p-23f);
  EXPECT_EQ(stored_scale(1e9f, DType::kF16), 65504.0f);
  EXPECT_EQ(stored_scale(1e-45f, DType::kF32),
            std::numeric_limits<float>::min());
  for (float s = 1e-42f; s < 1e37f; s *= 3.7f) {
    for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
      const float stored = stored_scale(s, dtype);
      EXPECT_TRUE(std::isfinite(stored) && stored > 0) << s;
    }
  }
}

TEST(IntGrid, TinyWeightsAreNotClippedByACoarseF16Scale) {
  // The exact scale, 2 * 1e-6 / 15 = 2.2 subnormal steps, is rounded up to 3.
  const std::vector<float> w = {-1e-6f, 1e-6f, 5e-7f};
  const IntGrid grid = fit_int_grid(w, scheme_of(4, true, DType::kF16));
  const Codes codes = encode(w, grid, 4);
  for (std::size_t i = 0; i < w.size(); ++i) {
    EXPECT_LE(std::abs(decode(grid, codes[i]) - w[i]), grid.scale * 0.5001f);
  }
  EXPECT_EQ(
      scale_notes(std::vector<float>{grid.scale, 1.0f, 65504.0f}, DType::kF16)
          .size(),
      2u);
}

TEST(IntGrid, DegenerateGroupsDecodeToThemselves) {
  for (const bool symmetric : {false, true}) {
    const std::vector<float> zeros(5, 0.0f);
    const IntGrid grid = fit_int_grid(zeros, scheme_of(4, symmetric));
    EXPECT_GT(grid.scale, 0.0f);
    for (const std::uint8_t code : encode(zeros, grid, 4)) {
      EXPECT_EQ(decode(grid, code), 0.0f);
    }
  }
  for (const float w : {1e-44f, 3.0f, -2.0f, 1e38f}) {
    const std::vector<float> constant(5, w);
    const IntGrid grid = fit_int_grid(constant, scheme_of(3, false));
    for (const std::uint8_t code : encode(constant, grid, 3)) {
      EXPECT_LE(std::abs(decode(grid, code) - w), grid.scale * 0.5001f) << w;
    }
  }
}

TEST(IntGrid, SearchFindsTheBestOfItsEightyRanges) {
  const MatrixF w = random_matrix(1, 200, 5);
  std::vector<float> values(w.data().begin(), w.data().end());
  values[17] = 9;  // an outlier worth clipping
  for (const double norm : {2.0, 2.4, 1.0}) {
    for (const bool symmetric : {false, true}) {
      WeightScheme scheme = scheme_of(3, symmetric);
      const IntGrid full = fit_int_grid(values, scheme);
      scheme.range = RangeSearch::kMse;
      scheme.mse_norm = norm;
      const IntGrid found = fit_int_grid(values, scheme);
      EXPECT_LT(found.scale, full.scale);
      // By definition, with std::pow in double.
      double best = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 80; ++i) {
        const float p = 1.0f - static_cast<float>(i) / 100.0f;
        IntGrid grid = full;
        grid.scale = full.scale * p;
        if (!symmetric) {
          const float lo = *std::min_element(values.begin(), values.end());
          grid.zero =
              static_cast<std::uint8_t>(std::nearbyint(-lo * p / grid.scale));
        }
        best = std::min(best, error_of(values, grid, 3, norm));
      }
      EXPECT_NEAR(error_of(values, found, 3, norm), best, 1e-4 * best);
    }
  }
}

// The first range of least error, all eighty tried.
IntGrid try_all(const std::vector<float>& w, const WeightScheme& scheme,
                const std::vector<float>& importance) {
  const auto [lo, hi] = std::minmax_element(w.begin(), w.end());
  const float largest = std::max(-*lo, *hi);
  const auto most = static_cast<float>((1 << scheme.bits) - 1);
  IntGrid best;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 80; ++i) {
    const float p = 1.0f - static_cast<float>(i) / 100.0f;
    const float from = p * (scheme.symmetric ? -largest : *lo);
    const float to = p * (scheme.symmetric ? largest : *hi);
    const float scale = stored_scale((to - from) / most, scheme.scale_dtype);
    const float zero =
        scheme.symmetric
            ? static_cast<float>(1 << (scheme.bits - 1))
            : std::clamp(std::nearbyint(-from / scale), 0.0f, most);
    const double error =
        grid_error(w, importance,
                   {.scale = scale,
                    .zero = zero,
                    .max_code = most,
                    .inverse_range = 1.0f / largest,
                    .norm = static_cast<float>(scheme.mse_norm)});
    if (error < least) {
      least = error;
      best = {scale, static_cast<std::uint8_t>(zero)};
    }
  }
  return best;
}

TEST(IntGrid, SearchRulesOutNoRangeThatIsBest) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  int shrunk = 0;
  for (std::size_t round = 0; round < 600; ++round) {
    const std::size_t n = std::array{3u, 16u, 64u, 100u, 128u}[round % 5];
    WeightScheme scheme =
        scheme_of(2 + static_cast<int>(round % 3), round % 2 == 0, DType::kF16);
    scheme.range = RangeSearch::kMse;
    scheme.mse_norm = std::array{2.4, 2.01, 3.0, 8.0}[round % 4];
    std::vector<float> w(n), importance;
    for (float& v : w) {
      v = normal(random);
      if (round % 7 == 0) v *= v * v;  // heavy tails
    }
    w[0] = -std::abs(w[0]), w[1] = std::abs(w[1]);  // 0 is in the range
    if (round % 3 == 0) {
      importance.resize(n);
      for (float& v : importance) {
        v = round % 9 == 0 ? 0.0f : std::exp(2 * normal(random));
      }
    }
    const IntGrid found = fit_int_grid(w, scheme, importance);
    const IntGrid wanted = try_all(w, scheme, importance);
    EXPECT_EQ(found.scale, wanted.scale) << round;
    EXPECT_EQ(found.zero, wanted.zero) << round;
    shrunk +=
        found.scale <
        0.9f * fit_int_grid(w, scheme_of(scheme.bits, scheme.symmetric)).scale;
  }
  EXPECT_GT(shrunk, 200);
}

TEST(IntGrid, ImportanceMovesTheSearchedRange) {
  // One large weight: kept if its input matters, clipped if it does not.
  std::vector<float> w(64);
  for (std::size_t i = 0; i < w.size(); ++i) {
    w[i] = 0.1f * static_cast<float>(i % 7) - 0.3f;
  }
  w[9] = 4;
  WeightScheme scheme = scheme_of(2, false);
  scheme.range = RangeSearch::kMse;
  scheme.mse_norm = 2;
  std::vector<float> importance(w.size(), 1.0f);
  importance[9] = 1e-4f;
  const float ignored = fit_int_grid(w, scheme, importance).scale;
  importance[9] = 1e4f;
  const float kept = fit_int_grid(w, scheme, importance).scale;
  EXPECT_LT(ignored, 0.5f * kept);
}

TEST(IntGrid, RefusesWeightsThatAreNotNumbers) {
  for (const float bad : {std::nanf(""), 2e38f, -INFINITY}) {
    MatrixF W(2, 3);
    W(1, 2) = bad;
    try {
      check_weights(W.view(), "q_proj");
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
      EXPECT_NE(std::string(error.what()).find("q_proj: weight [1, 2]"),
                std::string::npos)
          << error.what();
    }
  }
  EXPECT_THROW(check_weights(MatrixF().view(), "empty"), Error);
}

TEST(IntGrid, RefusesSchemesOutOfRange) {
  EXPECT_THROW(check_int_scheme({.bits = 1}), Error);
  EXPECT_THROW(check_int_scheme({.bits = 9}), Error);
  EXPECT_THROW(check_int_scheme({.group_size = -2}), Error);
  EXPECT_THROW(check_int_scheme({.mse_norm = 0}), Error);
  EXPECT_THROW(check_int_scheme({.scale_dtype = DType::kI8}), Error);
}

using Case = std::tuple<int, std::int64_t, bool, DType>;
class IntGridsOverShapes : public testing::TestWithParam<Case> {};

TEST_P(IntGridsOverShapes, DecodeToWithinHalfAStepAndRoundTrip) {
  const auto [bits, group_size, symmetric, scale_dtype] = GetParam();
  const MatrixF W = random_matrix(5, 53, 7);  // 53 leaves a short last group
  const WeightScheme scheme{.bits = bits,
                            .group_size = group_size,
                            .symmetric = symmetric,
                            .scale_dtype = scale_dtype};
  ThreadPool pool(2);
  const IntGrids grids = fit_int_grids(W.view(), scheme, pool);
  const Matrix<std::uint8_t> codes = encode_int(W.view(), grids, bits, pool);
  const GroupedIntWeight q = pack_grouped_int(codes.view(), grids, scheme);
  check(PackedWeight(q), "test");
  const MatrixF decoded = dequantize(q);
  // A stored scale may be smaller than the exact one by half an ulp (2^-9 of it
  // in bf16), which the extreme code feels 2^bits - 1 times.
  const float slack = scale_dtype == DType::kF32
                          ? 1e-4f
                          : 0x1p-9f * static_cast<float>(1 << bits);
  for (std::size_t o = 0; o < W.rows(); ++o) {
    for (std::size_t i = 0; i < W.cols(); ++i) {
      const float s = grids.scales(o, i / grids.group_size);
      EXPECT_LE(std::abs(W(o, i) - decoded(o, i)), s * (0.5f + slack));
    }
  }
  const Matrix<std::uint8_t> again =
      encode_int(decoded.view(), grids, bits, pool);
  EXPECT_TRUE(std::ranges::equal(codes.data(), again.data()));
}

INSTANTIATE_TEST_SUITE_P(
    BitsByGroup, IntGridsOverShapes,
    testing::Combine(testing::Values(2, 3, 4, 5, 8),
                     testing::Values(-1, 0, 1, 7, 32, 1000), testing::Bool(),
                     testing::Values(DType::kF32, DType::kF16, DType::kBF16)));

}  // namespace
}  // namespace llmpress

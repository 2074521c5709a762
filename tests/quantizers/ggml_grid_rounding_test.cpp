#include "quantizers/ggml_grid_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compress/core/rng.h"
#include "quantizers/ggml_rounding.h"

namespace llmpress {
namespace {

constexpr GgmlType kTypes[]{
    GgmlType::kIq1S, GgmlType::kIq1M,   GgmlType::kIq2Xxs, GgmlType::kIq2Xs,
    GgmlType::kIq2S, GgmlType::kIq3Xxs, GgmlType::kIq3S};

std::vector<float> normal(std::size_t count, Rng& rng) {
  std::vector<float> x(count);
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

std::vector<float> decoded(GgmlType type, const GgmlBlock& block) {
  std::vector<std::byte> octets(facts(type).bytes);
  pack_ggml_block(type, block, octets);
  std::vector<float> values(facts(type).elements);
  decode_ggml(type, octets, values);
  return values;
}

double error_of(std::span<const float> x, std::span<const float> y,
                std::span<const float> weights) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double off = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += static_cast<double>(weights[i]) * off * off;
  }
  return sum;
}

// Whether eight codes can be stored: points, an even number of minuses where
// the type asks for it, one half where it shifts.
bool can_be_stored(GgmlType type, std::span<const std::uint8_t> codes) {
  GgmlBlock block;
  for (std::size_t i = 0; i < 32; ++i) block.codes[i] = codes[i % 8];
  std::vector<std::byte> octets(facts(type).bytes);
  try {
    pack_ggml_block(type, block, octets);
  } catch (const std::logic_error&) {
    return false;
  }
  return true;
}

// The nearest of all that can be stored, found by trying all points and signs.
TEST(GgmlGridRounding, FindsTheNearestOfAllPointsAndSigns) {
  Rng rng(3);
  for (const GgmlType type : {GgmlType::kIq2Xxs, GgmlType::kIq1M}) {
    const GgmlGrid& grid = *grid_of(type);
    const GgmlLayout& l = layout(type);
    for (int round = 0; round < 6; ++round) {
      const std::vector<float> x = normal(8, rng);
      std::vector<float> weights = normal(8, rng);
      for (float& w : weights) w = w * w + 0.1f;
      const float s = type == GgmlType::kIq1M ? 0.12f : 0.04f;
      const auto error = [&](std::span<const std::uint8_t> codes) {
        double sum = 0;
        for (std::size_t k = 0; k < 8; ++k) {
          const double off = static_cast<double>(x[k]) -
                             static_cast<double>(s) * value_of(l, codes[k]);
          sum += static_cast<double>(weights[k]) * off * off;
        }
        return sum;
      };
      double least = 1e30;
      for (std::size_t e = 0; e < grid.entries; ++e) {
        for (unsigned upper = 0; upper < 256; ++upper) {
          std::vector<std::uint8_t> codes(8);
          for (std::size_t k = 0; k < 8; ++k) {
            codes[k] = static_cast<std::uint8_t>(
                grid.point(e)[k] + (upper >> k & 1u) * grid.levels);
          }
          const double own = error(codes);
          if (own < least && can_be_stored(type, codes)) least = own;
        }
      }
      std::vector<std::uint8_t> codes(8);
      round_to_grid(type, s, x, weights, GridHalf::kAny, codes);
      EXPECT_TRUE(can_be_stored(type, codes));
      EXPECT_NEAR(error(codes), least, 1e-5 * least) << facts(type).name;
    }
  }
}

TEST(GgmlGridRounding, KeepsToTheHalfThatIsAsked) {
  Rng rng(4);
  std::vector<std::uint8_t> codes(8);
  const std::vector<float> x = normal(8, rng), weights(8, 1.0f);
  for (const GridHalf half : {GridHalf::kLower, GridHalf::kUpper}) {
    round_to_grid(GgmlType::kIq1S, 0.1f, x, weights, half, codes);
    for (const std::uint8_t code : codes) {
      EXPECT_EQ(code >= 3, half == GridHalf::kUpper);
    }
  }
}

TEST(GgmlGridRounding, FindsABlockThatIsOnItsGridAgain) {
  Rng rng(5);
  for (const GgmlType type : kTypes) {
    const std::vector<float> ones(256, 1.0f);
    const std::vector<float> once =
        decoded(type, fit_grid_block(type, normal(256, rng), ones));
    const std::vector<float> twice =
        decoded(type, fit_grid_block(type, once, ones));
    double energy = error_of(once, std::vector<float>(256), ones);
    EXPECT_LT(error_of(once, twice, ones), 0.012 * energy) << facts(type).name;
  }
}

// Of Gaussian weights: the rate of each type bounds the error from both sides.
TEST(GgmlGridRounding, MoreBitsAreNearer) {
  Rng rng(6);
  double before = 1;
  for (const GgmlType type : kTypes) {
    double error = 0, energy = 0;
    for (int block = 0; block < 8; ++block) {
      const std::vector<float> x = normal(256, rng), ones(256, 1.0f);
      error += error_of(x, decoded(type, fit_grid_block(type, x, ones)), ones);
      energy += error_of(x, std::vector<float>(256), ones);
    }
    const GgmlTypeFacts& f = facts(type);
    const double bits = static_cast<double>(8 * f.bytes) / 256;
    EXPECT_GT(error / energy, std::pow(4, -bits)) << f.name;  // Shannon
    EXPECT_LT(error / energy, 2.2 * std::pow(4, -bits)) << f.name;
    EXPECT_LT(error / energy, before) << f.name;
    before = error / energy;
  }
}

}  // namespace
}  // namespace llmpress

#include "compress/core/ggml/ggml_grid.h"

#include <gtest/gtest.h>

#include <bit>
#include <stdexcept>
#include <string_view>

#include "compress/core/ggml/ggml_block.h"
#include "tests/compress/core/ggml/random_grid_codes.h"

namespace llmpress {
namespace {

// Forty blocks of octets of a linear congruential generator with d = 1.5 as
// dequantize_row_* of ggml decodes them: values 0, 7, 255 and the last, and the
// FNV-1a of all.
struct Golden {
  std::string_view type;
  float values[4];
  std::uint64_t digest;
};
constexpr Golden kGoldens[] = {
    {"iq2_xxs", {31.5f, -31.5f, -43.5f, -24.1875f}, 0x8f176d835ff519aeu},
    {"iq2_xs", {7.5f, 7.5f, 46.5f, 117.1875f}, 0xe8d249f1c376db4eu},
    {"iq3_xxs", {337.5f, -337.5f, 534.75f, 302.25f}, 0x3960f3135952db0bu},
    {"iq1_s", {-0.1875f, -0.1875f, 14.4375f, 6.5625f}, 0x0ffbfab3407fa4c8u},
    {"iq3_s", {-241.5f, -379.5f, 562.5f, 247.5f}, 0x3626917d327c06f3u},
    {"iq2_s", {-34.5f, 107.8125f, -153.1875f, -4.5f}, 0x2692e29238744748u},
    {"iq1_m", {25.3125f, 2.8125f, -9.1875f, 1.3125f}, 0x0c1204b6bb300789u},
};

std::vector<std::byte> golden_octets(const GgmlTypeFacts& f) {
  constexpr std::size_t kBlocks = 40;
  std::vector<std::byte> octets(kBlocks * f.bytes);
  std::uint32_t state = 1;
  for (std::byte& o : octets) {
    state = state * 1664525u + 1013904223u;
    o = static_cast<std::byte>(state >> 24);
  }
  for (std::size_t at = 0; at < octets.size(); at += f.bytes) {
    if (f.type != GgmlType::kIq1M) {
      octets[at] = std::byte{0};
      octets[at + 1] = std::byte{0x3e};
      continue;
    }
    constexpr unsigned kNibbles[]{0, 0, 0xe, 3};
    for (std::size_t q = 0; q < 4; ++q) {
      std::byte& o = octets[at + 49 + 2 * q];
      o = (o & std::byte{0x0f}) | static_cast<std::byte>(kNibbles[q] << 4);
    }
  }
  return octets;
}

TEST(GgmlGrid, DecodesAsGgmlDoes) {
  for (const Golden& golden : kGoldens) {
    const GgmlTypeFacts& f = facts(*parse_ggml_type(golden.type));
    const auto octets = golden_octets(f);
    std::vector<float> x(octets.size() / f.bytes * f.elements);
    decode_ggml(f.type, octets, x);
    const std::size_t places[]{0, 7, 255, x.size() - 1};
    for (std::size_t p = 0; p < 4; ++p) {
      EXPECT_EQ(x[places[p]], golden.values[p]) << f.name << " " << p;
    }
    std::uint64_t digest = 1469598103934665603u;
    for (const float v : x) {
      const auto bits = std::bit_cast<std::uint32_t>(v);
      for (unsigned shift = 0; shift < 32; shift += 8) {
        digest = (digest ^ (bits >> shift & 255u)) * 1099511628211u;
      }
    }
    EXPECT_EQ(digest, golden.digest) << f.name;
  }
}

TEST(GgmlGrid, HasAGoldenForEveryTypeWithAGrid) {
  std::size_t types = 0;
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    types += grid_of(f.type) != nullptr ? 1u : 0u;
  }
  EXPECT_EQ(types, std::size(kGoldens));
}

TEST(GgmlGrid, FindsItsPointsAndNoOthers) {
  for (const Golden& golden : kGoldens) {
    const GgmlGrid& grid = *grid_of(*parse_ggml_type(golden.type));
    for (std::size_t e = 0; e < grid.entries; ++e) {
      EXPECT_EQ(grid.find(grid.point(e)), e);
    }
    std::size_t all = 1, found = 0;
    for (std::size_t k = 0; k < grid.group; ++k) all *= grid.levels;
    for (std::size_t key = 0; key < all; ++key) {
      std::vector<std::uint8_t> point;
      for (std::size_t k = 0, rest = key; k < grid.group; ++k) {
        point.push_back(static_cast<std::uint8_t>(rest % grid.levels));
        rest /= grid.levels;
      }
      found += grid.find(point) ? 1u : 0u;
    }
    EXPECT_EQ(found, grid.entries) << golden.type;
  }
}

TEST(GgmlGrid, RefusesCodesThatABlockCannotHold) {
  std::vector<std::byte> octets(facts(GgmlType::kIq2Xxs).bytes);
  GgmlBlock block;
  pack_ggml_block(GgmlType::kIq2Xxs, block, octets);  // the first point
  block.codes[3] = 3;                                 // a single minus
  EXPECT_THROW(pack_ggml_block(GgmlType::kIq2Xxs, block, octets),
               std::logic_error);
  block.codes[4] = 3;
  pack_ggml_block(GgmlType::kIq2Xxs, block, octets);
  for (std::size_t k = 0; k < 8; ++k) block.codes[k] = k == 0 ? 2 : 1;
  EXPECT_THROW(pack_ggml_block(GgmlType::kIq2Xxs, block, octets),
               std::logic_error);
}

}  // namespace
}  // namespace llmpress

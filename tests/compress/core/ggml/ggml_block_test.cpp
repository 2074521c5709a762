#include "compress/core/ggml/ggml_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "compress/core/error.h"
#include "compress/core/rng.h"
#include "tests/compress/core/ggml/random_grid_codes.h"

namespace llmpress {
namespace {

std::vector<GgmlTypeFacts> block_types() {
  std::vector<GgmlTypeFacts> types;
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (!f.plain && f.decodes) types.push_back(f);
  }
  return types;
}

// Codes and scales that the type can hold, every one of them used.
GgmlBlock random_block(const GgmlTypeFacts& f, Rng& rng) {
  const GgmlLayout& l = layout(f.type);
  GgmlBlock block;
  const bool fixed = f.type == GgmlType::kMxfp4 || f.type == GgmlType::kNvfp4;
  block.d = fixed ? 1.0f : 0.5f;
  block.dmin = l.minima ? 0.25f : 0.0f;
  testing::set_random_codes(f.type, rng, block);
  if (l.most_scale == 1) return block;
  const auto below = [&](int least, int most) {
    return least + static_cast<int>(
                       rng.below(static_cast<std::uint64_t>(most - least + 1)));
  };
  for (std::size_t j = 0; j < f.elements / l.step; ++j) {
    block.scale_codes[j] =
        static_cast<std::int16_t>(below(l.least_scale, l.most_scale));
    if (l.minima) {
      block.min_codes[j] = static_cast<std::uint8_t>(below(0, l.most_scale));
    }
  }
  return block;
}

TEST(GgmlBlock, UnpacksWhatItPacked) {
  Rng rng(1);
  for (const GgmlTypeFacts& f : block_types()) {
    for (int round = 0; round < 20; ++round) {
      const GgmlBlock block = random_block(f, rng);
      std::vector<std::byte> octets(f.bytes);
      pack_ggml_block(f.type, block, octets);
      const GgmlBlock back = unpack_ggml_block(f.type, octets);
      EXPECT_EQ(back.d, block.d) << f.name;
      EXPECT_EQ(back.dmin, block.dmin) << f.name;
      EXPECT_EQ(back.scale_codes, block.scale_codes) << f.name;
      EXPECT_EQ(back.min_codes, block.min_codes) << f.name;
      EXPECT_EQ(back.codes, block.codes) << f.name;
    }
  }
}

TEST(GgmlBlock, AnyOctetsOfAnyTypeButTritsComeBack) {
  Rng rng(2);
  for (const GgmlTypeFacts& f : block_types()) {
    if (f.type == GgmlType::kTq1_0) continue;  // has octets for no trits
    std::vector<std::byte> octets(f.bytes), back(f.bytes);
    for (std::byte& o : octets) o = static_cast<std::byte>(rng.below(256));
    pack_ggml_block(f.type, unpack_ggml_block(f.type, octets), back);
    EXPECT_EQ(back, octets) << f.name;
  }
}

TEST(GgmlBlock, DecodesByTheFormula) {
  Rng rng(3);
  for (const GgmlTypeFacts& f : block_types()) {
    const GgmlLayout& l = layout(f.type);
    const GgmlBlock block = random_block(f, rng);
    std::vector<std::byte> octets(f.bytes);
    pack_ggml_block(f.type, block, octets);
    std::vector<float> values(f.elements);
    decode_ggml(f.type, octets, values);
    for (std::size_t i = 0; i < f.elements; ++i) {
      const std::size_t j = i / l.step;
      EXPECT_EQ(values[i], scale_of(l, block, j) * static_cast<float>(value_of(
                                                       l, block.codes[i])) -
                               minimum_of(l, block, j))
          << f.name << " " << i;
    }
  }
}

// Three blocks by hand.
TEST(GgmlBlock, DecodesWhatTheLayoutsSay) {
  const auto decoded = [](GgmlType type, std::initializer_list<int> octets) {
    std::vector<std::byte> bytes;
    for (const int o : octets) bytes.push_back(static_cast<std::byte>(o));
    bytes.resize(facts(type).bytes);
    std::vector<float> values(facts(type).elements);
    decode_ggml(type, bytes, values);
    return values;
  };
  // d = 1: 15 - 8, then the high half of the same octet.
  const auto q4_0 = decoded(GgmlType::kQ4_0, {0x00, 0x3c, 0x2f});
  EXPECT_EQ(q4_0[0], 7);
  EXPECT_EQ(q4_0[16], -6);
  EXPECT_EQ(q4_0[1], -8);
  // d = 2, dmin = 1, scale 3 and minimum 5 of the first sub-block.
  const auto q4_k = decoded(GgmlType::kQ4_K, {0x00, 0x40, 0x00, 0x3c, 3, 0, 0,
                                              0, 5, 0, 0, 0, 0, 0, 0, 0, 0x14});
  EXPECT_EQ(q4_k[0], 2 * 3 * 4 - 5);
  EXPECT_EQ(q4_k[1], -5);
  EXPECT_EQ(q4_k[32], 0);  // scale 0, minimum 0
  // 2^(127 - 127) / 2 * 12.
  EXPECT_EQ(decoded(GgmlType::kMxfp4, {127, 0x07})[0], 6);
}

TEST(GgmlBlock, RefusesTypesThatItCannotDecode) {
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    if (f.plain || f.decodes) continue;
    const std::vector<std::byte> octets(f.bytes);
    std::vector<float> values(f.elements);
    EXPECT_THROW(decode_ggml(f.type, octets, values), Error) << f.name;
  }
}

TEST(GgmlType, IsFoundByNumberAndByNameInAnyCase) {
  for (const GgmlTypeFacts& f : all_ggml_types()) {
    EXPECT_EQ(ggml_type_of_id(static_cast<std::uint32_t>(f.type)), f.type);
    EXPECT_EQ(parse_ggml_type(f.name), f.type);
  }
  EXPECT_EQ(parse_ggml_type("Q4_k"), GgmlType::kQ4_K);
  EXPECT_FALSE(parse_ggml_type("q4"));
  EXPECT_FALSE(ggml_type_of_id(4));  // taken out of the format
  EXPECT_EQ(ggml_type_of(DType::kBF16), GgmlType::kBF16);
  EXPECT_FALSE(ggml_type_of(DType::kU8));
}

}  // namespace
}  // namespace llmpress

#include "compress/core/bit_packing.h"

#include <gtest/gtest.h>

#include "compress/core/rng.h"

namespace llmpress {
namespace {

using Words = std::vector<std::uint32_t>;

std::vector<std::uint8_t> random_codes(std::size_t count, int bits) {
  Rng rng(count * 10 + static_cast<std::size_t>(bits));
  std::vector<std::uint8_t> codes(count);
  for (auto& c : codes) {
    c = static_cast<std::uint8_t>(rng.below(std::uint64_t{1} << bits));
  }
  return codes;
}

Words pack(const std::vector<std::uint8_t>& codes, int bits) {
  // Words are not zero before: padding must be written too.
  Words words(packed_words(codes.size(), bits), 0xffffffffu);
  pack_codes(codes, bits, words);
  return words;
}

// 33 codes (5 k) mod 2^bits, as compressed-tensors packs them.
TEST(BitPacking, AgreesWithTheWordsOfCompressedTensorsAtEveryWidth) {
  const Words golden[] = {
      {0xe4e4e4e4, 0xe4e4e4e4, 0x00000000},
      {0xa878cea8, 0xcea878ce, 0x78cea878, 0x00000000},
      {0x3e94fa50, 0xb61c72d8, 0x3e94fa50, 0xb61c72d8, 0x00000000},
      {0xb347a8a0, 0xcbc9a81f, 0xeab05983, 0xb89b924f, 0xdda2c38b, 0x00000000},
      {0x543ca140, 0x2b688de6, 0x2c607cdf, 0x647da550, 0x2f78ceea, 0x6d644c1c,
       0x00000020},
      {0x41e28280, 0xa84678c9, 0x0bc6ec96, 0xaad0971a, 0xbb4e4bf6, 0xe0bef8e7,
       0x365888c0, 0x00000020},
      {0x0f0a0500, 0x231e1914, 0x37322d28, 0x4b46413c, 0x5f5a5550, 0x736e6964,
       0x87827d78, 0x9b96918c, 0x000000a0}};
  for (int bits = 2; bits <= 8; ++bits) {
    std::vector<std::uint8_t> codes(33);
    for (std::size_t k = 0; k < codes.size(); ++k) {
      codes[k] = static_cast<std::uint8_t>((5 * k) % (std::size_t{1} << bits));
    }
    EXPECT_EQ(pack(codes, bits), golden[bits - 2]) << bits;
  }
}

// Column 1 of GPTQ's qweight: codes (5 i + 3) mod 2^bits.
TEST(BitPacking, AgreesWithTheColumnsOfGptq) {
  const std::pair<int, Words> golden[] = {
      {2, {0x93939393, 0x93939393}},
      {3, {0x43c67543, 0x7543c675, 0xc67543c6}},
      {4, {0x61c72d83, 0xe94fa50b, 0x61c72d83, 0xe94fa50b}},
      {8,
       {0x120d0803, 0x26211c17, 0x3a35302b, 0x4e49443f, 0x625d5853, 0x76716c67,
        0x8a85807b, 0x9e99948f}}};
  for (const auto& [bits, words] : golden) {
    std::vector<std::uint8_t> codes(32);
    for (std::size_t k = 0; k < codes.size(); ++k) {
      codes[k] =
          static_cast<std::uint8_t>((5 * k + 3) % (std::size_t{1} << bits));
    }
    EXPECT_EQ(pack(codes, bits), words) << bits;
  }
}

TEST(BitPacking, CodeKTakesTheBitsFromKTimesTheWidth) {
  for (int bits = 1; bits <= 8; ++bits) {
    const auto codes = random_codes(71, bits);
    const Words words = pack(codes, bits);
    for (std::size_t k = 0; k < codes.size(); ++k) {
      for (std::size_t b = 0; b < static_cast<std::size_t>(bits); ++b) {
        const std::size_t bit = k * static_cast<std::size_t>(bits) + b;
        EXPECT_EQ((words[bit / 32] >> (bit % 32)) & 1u,
                  (unsigned{codes[k]} >> b) & 1u);
      }
      EXPECT_EQ(packed_code(words, bits, k), codes[k]);
    }
  }
}

TEST(BitPacking, UnpackingGivesBackWhatWasPackedAtEveryLength) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (std::size_t count = 0; count <= 70; ++count) {
      const auto codes = random_codes(count, bits);
      std::vector<std::uint8_t> unpacked(count);
      unpack_codes(pack(codes, bits), bits, unpacked);
      EXPECT_EQ(unpacked, codes) << bits << " bits, " << count;
    }
  }
}

TEST(BitPacking, PaddingAfterTheLastCodeIsZero) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (std::size_t count = 1; count <= 40; ++count) {
      const Words words = pack(random_codes(count, bits), bits);
      const std::size_t used = count * static_cast<std::size_t>(bits);
      const std::size_t last = used - (words.size() - 1) * 32;
      if (last < 32) {
        EXPECT_EQ(words.back() >> last, 0u);
      }
    }
  }
}

TEST(BitPacking, WordsAreCountedWithoutOverflow) {
  EXPECT_EQ(packed_words(0, 3), 0u);
  EXPECT_EQ(packed_words(1, 3), 1u);
  EXPECT_EQ(packed_words(32, 3), 3u);
  EXPECT_EQ(packed_words(33, 3), 4u);
  EXPECT_EQ(packed_words(11, 3), 2u);
  EXPECT_EQ(packed_words(std::size_t{1} << 62, 8), std::size_t{1} << 60);
}

}  // namespace
}  // namespace llmpress

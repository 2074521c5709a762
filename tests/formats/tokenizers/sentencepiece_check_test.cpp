#include "formats/tokenizers/sentencepiece_check.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "compress/core/error.h"
#include "formats/checkpoints/artifact_writer.h"
#include "formats/tokenizers/tokenizer.h"
#include "tests/places.h"

namespace llmpress {
namespace {

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string field(int number, const std::string& content) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) +
         varint(content.size()) + content;
}

std::string piece(const std::string& text, float score = -1, int type = 1) {
  std::string raw(4, '\0');
  std::memcpy(raw.data(), &score, 4);
  return field(1, field(1, text) + varint(2 << 3 | 5) + raw + varint(3 << 3) +
                      varint(static_cast<unsigned>(type)));
}

// A trie in which 'a' leads to `leaf`, the place of its replacement.
std::vector<std::uint32_t> trie_of_a(std::uint32_t leaf) {
  std::vector<std::uint32_t> units(512, 0x80000000u);
  units[0] = 256u << 10;  // children from 256 on
  units[256 ^ 'a'] = ((256u ^ 'a') ^ 300u) << 10 | 1u << 8 | 'a';
  units[300] = 0x80000000u | leaf;
  return units;
}

std::string map_of(const std::vector<std::uint32_t>& units,
                   const std::string& strings) {
  const auto bytes = static_cast<std::uint32_t>(units.size() * 4);
  std::string out(4 + bytes, '\0');
  std::memcpy(out.data(), &bytes, 4);
  std::memcpy(out.data() + 4, units.data(), bytes);
  return out + strings;
}

std::string model_with(const std::string& map) {
  return piece("<unk>", 0, 2) + piece("b") + piece("\u2581b") +
         field(3, field(2, map));
}

std::string refusal(const std::string& model) {
  try {
    check_sentencepiece_model(model, "m/tokenizer.model");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    EXPECT_TRUE(std::string(error.what()).starts_with("m/tokenizer.model"));
    return error.what();
  }
  return "";
}

using namespace std::string_literals;

TEST(SentencePieceCheck, AWellFormedCharacterMapPassesAndIsUsed) {
  const std::string model = model_with(map_of(trie_of_a(2), "x\0b\0"s));
  EXPECT_EQ(refusal(model), "");
  const auto toy = tokenizer_from_sentencepiece(model, {}, "toy");
  EXPECT_EQ(toy->encode("a"), toy->encode("b"));
  EXPECT_EQ(refusal(read_file(source_dir() +
                              "/models/tinystories-3.7m/tokenizer.model")),
            "");
}

TEST(SentencePieceCheck, ADamagedCharacterMapIsRefused) {
  const std::string strings = "x\0b\0"s;
  const auto good = trie_of_a(2);
  for (const std::size_t bytes : {1u, 3u, 4u, 8u, 1028u, 2051u, 2052u}) {
    EXPECT_NE(refusal(model_with(map_of(good, strings).substr(0, bytes))), "")
        << bytes;
  }
  EXPECT_NE(refusal(model_with(map_of(good, "x\0b"s))), "");
  EXPECT_NE(refusal(model_with(map_of(good, "x\0\xFF\0"s))), "");
  EXPECT_NE(refusal(model_with(map_of(trie_of_a(4), strings))), "");
  EXPECT_NE(
      refusal(model_with(map_of(good, std::string(1025, 'x') + "\0b\0"s))), "");
  auto units = good;
  units[0] = 512u << 10;  // outside
  EXPECT_NE(refusal(model_with(map_of(units, strings))), "");
  units = good;
  units[256 ^ 'a'] = 0x1FFFFFu << 10 | 1u << 9 | 1u << 8 | 'a';
  EXPECT_NE(refusal(model_with(map_of(units, strings))), "");
  units = good;
  units[256 ^ 'a'] = 'a' << 10 | 'a';  // back to where it came from
  EXPECT_NE(refusal(model_with(map_of(units, strings))).find("circle"),
            std::string::npos);
  // One of two maps, and the one of the denormalizer.
  const std::string broken = map_of(units, strings);
  EXPECT_NE(
      refusal(model_with(map_of(good, strings)) + field(3, field(2, broken))),
      "");
  EXPECT_NE(refusal(model_with("") + field(5, field(2, broken))), "");
}

TEST(SentencePieceCheck, DamagedPiecesAreRefused) {
  EXPECT_EQ(refusal(piece("<unk>", 0, 2) + piece("a")), "");
  EXPECT_NE(refusal(""), "");
  EXPECT_NE(refusal(piece("")), "");
  EXPECT_NE(refusal(piece("a\0b"s)), "");
  EXPECT_NE(refusal(piece("\xC3")), "");
  EXPECT_NE(refusal(piece("a", std::numeric_limits<float>::infinity())), "");
  EXPECT_NE(refusal(piece("a", 0, 7)), "");
  EXPECT_NE(refusal(piece("a").substr(0, 5)), "");
  EXPECT_NE(refusal("\x0B" + piece("a")), "");  // a group
  std::string nested;
  for (std::size_t i = 1; i <= 64; ++i)
    nested += piece(std::string(i, 'a'), 0, 4);
  EXPECT_EQ(refusal(nested), "");
  EXPECT_NE(refusal(nested + piece(std::string(65, 'a'), 0, 4)), "");
}

TEST(SentencePieceCheck, NamesAVocabularyOfTiktoken) {
  try {
    check_sentencepiece_model("IQ== 0\nIg== 1\n", "tokenizer.model");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("tokenizer.json beside it"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace llmpress

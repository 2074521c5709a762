#include "formats/tokenizers/token_decoder.h"

#include <gtest/gtest.h>

#include <set>

#include "compress/core/error.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

std::string decode(std::string_view json,
                   const std::vector<std::string>& tokens) {
  const JsonDocument document(json, "tokenizer.json");
  std::vector<Spelling> spellings;
  for (const auto& token : tokens) spellings.push_back({token, false});
  return TokenDecoder(document.root()).decode(spellings);
}

TEST(TokenDecoder, TheByteAlphabetIsGpt2s) {
  EXPECT_EQ(byte_level_character(' '), U'\u0120');
  EXPECT_EQ(byte_level_character('\n'), U'\u010A');
  EXPECT_EQ(byte_level_character(0), U'\u0100');
  EXPECT_EQ(byte_level_character('!'), U'!');
  EXPECT_EQ(byte_level_character(0x7F), U'\u0121');
  EXPECT_EQ(byte_level_character(0xA0), U'\u0142');
  EXPECT_EQ(byte_level_character(0xAD), U'\u0143');
  EXPECT_EQ(byte_level_character(0xFF), U'\u00FF');
  std::set<char32_t> seen;
  for (int b = 0; b < 256; ++b) {
    const char32_t c = byte_level_character(static_cast<unsigned char>(b));
    seen.insert(c);
    EXPECT_EQ(byte_of_character(c), static_cast<unsigned char>(b));
  }
  EXPECT_EQ(seen.size(), 256u);
  EXPECT_EQ(byte_of_character(U' '), std::nullopt);
  EXPECT_EQ(byte_of_character(U'\u0144'), std::nullopt);
}

TEST(TokenDecoder, ByteLevelJoinsBytesOfACharacter) {
  constexpr const char* kJson = R"({"type": "ByteLevel"})";
  EXPECT_EQ(decode(kJson, {"Hello", "\u0120my", "\u0120f"}), "Hello my f");
  EXPECT_EQ(decode(kJson, {"\u00C3", "\u00A9"}), "\u00E9");  // C3 A9
  EXPECT_EQ(decode(kJson, {"\u00C3", "a"}), "\uFFFDa");
}

TEST(TokenDecoder, ByteFallbackWritesWhatIsNoTextAsSigns) {
  constexpr const char* kJson = R"({"type": "ByteFallback"})";
  EXPECT_EQ(decode(kJson, {"x", "<0xC3>", "<0xA9>", "y"}), "x\u00E9y");
  EXPECT_EQ(decode(kJson, {"<0xE2>", "<0x82>", "y"}), "\uFFFD\uFFFDy");
  EXPECT_EQ(decode(kJson, {"<0xG1>", "<0x1>"}), "<0xG1><0x1>");
}

TEST(TokenDecoder, StripCutsEachTokenAtItsEnds) {
  constexpr const char* kJson =
      R"({"type": "Strip", "content": "H", "start": 1, "stop": 1})";
  EXPECT_EQ(decode(kJson, {"Hey", " you", "HHH", "H", ""}), "ey youH");
}

TEST(TokenDecoder, MetaspaceTakesOnlyThePrefixAway) {
  EXPECT_EQ(
      decode(R"({"type": "Metaspace", "replacement": "▁"})", {"▁▁Hey", "▁you"}),
      " Hey you");
  EXPECT_EQ(decode(R"({"type": "Metaspace", "replacement": "▁",
                       "prepend_scheme": "never"})",
                   {"▁Hey"}),
            " Hey");
}

TEST(TokenDecoder, UnknownKindsAreNamedWithTheirPlace) {
  try {
    decode(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
               {"type": "CTC"}]})",
           {});
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_TRUE(std::string(error.what())
                    .starts_with("tokenizer.json: /decoders/1/type: decoder "
                                 "'CTC'"))
        << error.what();
  }
}

}  // namespace
}  // namespace llmpress

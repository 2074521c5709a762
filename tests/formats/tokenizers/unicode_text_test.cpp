#include "formats/tokenizers/unicode_text.h"

#include <gtest/gtest.h>

#include <string>

namespace llmpress {
namespace {

TEST(UnicodeText, EveryScalarValueSurvivesUtf8) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    std::size_t at = 0;
    const bool survives = valid_utf8_length(text) == text.size() &&
                          next_utf8(text, at) == c && at == text.size() &&
                          previous_utf8(text, text.size()) == 0;
    if (!survives) FAIL() << static_cast<unsigned>(c);
  }
}

TEST(UnicodeText, IllFormedUtf8IsFoundWhereItStarts) {
  for (const char* bad :
       {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
        "\xC3", "\xE2\x82", "\xF0\x9F\x98"}) {
    EXPECT_EQ(valid_utf8_length(std::string("ok\xC3\xA9") + bad), 4u) << bad;
    EXPECT_EQ(valid_utf8_length(std::string(bad) + "x"), 0u) << bad;
  }
}

TEST(UnicodeText, SubstitutesMaximalSubparts) {
  // The example of Unicode 15, table 3-11 (truncated sequences).
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFDA");
  // Table 3-8 (overlong forms): each byte of its own.
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA");
}

TEST(UnicodeText, NormalizesAsUnicodeSays) {
  EXPECT_EQ(normalize_unicode("e\u0301\n\u1E9B\u0323", UnicodeForm::kNfc),
            "\u00E9\n\u1E9B\u0323");  // second: Unicode TR 15, figure 6
  EXPECT_EQ(normalize_unicode("\u1E9B\u0323", UnicodeForm::kNfd),
            "\u017F\u0323\u0307");
  EXPECT_EQ(normalize_unicode("\u1E9B\u0323", UnicodeForm::kNfkc), "\u1E69");
  EXPECT_EQ(normalize_unicode("\u1E9B\u0323", UnicodeForm::kNfkd),
            "s\u0323\u0307");
  EXPECT_EQ(normalize_unicode("\u1112\u1161\u11AB", UnicodeForm::kNfc),
            "\uD55C");  // Hangul
  EXPECT_EQ(normalize_unicode("", UnicodeForm::kNfc), "");
  // The longest growth there is: one character into eighteen.
  EXPECT_EQ(normalize_unicode("\uFDFA", UnicodeForm::kNfkd).size(), 33u);
}

TEST(UnicodeText, KnowsWordsAndWhiteSpace) {
  for (const char32_t c : {U' ', U'\n', U'\u00A0', U'\u3000', U'\u0085'}) {
    EXPECT_TRUE(is_white_space(c)) << static_cast<unsigned>(c);
  }
  EXPECT_FALSE(is_white_space(U'\u180E'));
  EXPECT_FALSE(is_white_space(U'\u200B'));
  for (const char32_t c : {U'a', U'_', U'7', U'\u00E9', U'\u4E2D', U'\u0301'}) {
    EXPECT_TRUE(is_word_character(c)) << static_cast<unsigned>(c);
  }
  for (const char32_t c : {U'-', U' ', U'<', U'\U0001F600'}) {
    EXPECT_FALSE(is_word_character(c)) << static_cast<unsigned>(c);
  }
}

}  // namespace
}  // namespace llmpress

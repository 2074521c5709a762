#include "formats/tokenizers/text_regex.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace llmpress {
namespace {

std::vector<std::string> matches(const TextRegex& regex,
                                 std::string_view text) {
  std::vector<std::string> found;
  for (const auto [begin, end] : regex.find_all(text)) {
    found.emplace_back(text.substr(begin, end - begin));
  }
  return found;
}
using Texts = std::vector<std::string>;

TEST(TextRegex, WhiteSpaceIsThePropertyOfUnicode) {
  const TextRegex spaces("\\s+", "here");
  EXPECT_EQ(matches(spaces, "a\u00A0\u3000b\u0085\tc\u180Ed"),
            (Texts{"\u00A0\u3000", "\u0085\t"}));
  EXPECT_EQ(matches(TextRegex("[^\\s]+", "here"), "a\u00A0b\u180Ec"),
            (Texts{"a", "b\u180Ec"}));
  EXPECT_EQ(matches(TextRegex("\\S+", "here"), "ab\u2003c"),
            (Texts{"ab", "c"}));
}

TEST(TextRegex, LinesEndAtLineFeedsOnly) {
  EXPECT_EQ(matches(TextRegex("^.", "here"), "ab\ncd\re"), (Texts{"a", "c"}));
}

TEST(TextRegex, EmptyMatchesMoveOnByCharacters) {
  const auto found = TextRegex("x*", "here").find_all("\u00E9x");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].begin, 2u);
  EXPECT_EQ(found[1].end, 3u);
}

TEST(TextRegex, LiteralsAreTakenAsTheyAre) {
  EXPECT_EQ(matches(TextRegex::of_literal("a.[b]\\Q", "here"), "axa.[b]\\Qb"),
            (Texts{"a.[b]\\Q"}));
  EXPECT_EQ(matches(TextRegex::of_literal("\u2581", "here"), "a\u2581\u2581"),
            (Texts{"\u2581", "\u2581"}));
}

TEST(TextRegex, RefusesWhatTheOtherEngineReadsDifferently) {
  for (const char* pattern :
       {"[\\p{L}&&[^a]]", "[a[bc]]", "\\h+", "a{,3}", "(?<x>a)\\g<x>", "a\\Kb",
        "(*VERB)a", "(?#note)a", "(unclosed", "[z-a]", "[[:alpha]",
        "\\p{Nonsense}"}) {
    try {
      const TextRegex regex(pattern, "tokenizer.json: /x");
      ADD_FAILURE() << pattern << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << pattern;
      EXPECT_TRUE(std::string(error.what()).starts_with("tokenizer.json: /x"))
          << error.what();
    }
  }
}

TEST(TextRegex, SetsThatBothEnginesReadAlikePass) {
  EXPECT_EQ(matches(TextRegex("[]\\[x]+|[^]a]+", "here"), "][xb]a"),
            (Texts{"][x", "b", "]"}));
  EXPECT_EQ(matches(TextRegex("[[:alpha:]_]+", "here"), "a_\u00E9-b"),
            (Texts{"a_\u00E9", "b"}));
}

TEST(TextRegex, AMatchThatNeverEndsIsAnError) {
  const TextRegex regex("(a+)+$", "here");
  try {
    regex.find_all(std::string(64, 'a') + "b");
    ADD_FAILURE() << "matched";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
  }
}

}  // namespace
}  // namespace llmpress

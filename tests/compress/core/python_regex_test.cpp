#include "compress/core/python_regex.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace llmpress {
namespace {

Regex regex(std::string_view pattern) {
  return python_regex(pattern, {.place = "here"});
}

struct Case {
  std::string_view pattern, text;
  bool start = false, whole = false;  // re.match, re.fullmatch
};

TEST(PythonRegex, MatchesWhatPythonsReMatches) {
  // Answers of Python 3.11's re.match and re.fullmatch.
  constexpr Case kCases[] = {
      {"a|ab", "ab", true, true},
      {"a", "ba", false, false},
      {"a", "ab", true, false},
      {".*proj", "m.q_proj.x", true, false},
      {"a$", "a\n", true, false},
      {"a\\Z", "a\n", false, false},
      {"a.b", "a\nb", false, false},
      {"a.b", "a\rb", true, true},
      {"a{,2}$", "aaa", false, false},
      {"a{,2}$", "aa", true, true},
      {"a{,}b", "aaab", true, true},
      {"a{,x}", "a{,x}", true, true},
      {"[[]+a", "[[a", true, true},
      {"[[:alpha:]]", "a]", true, true},
      {"[[:alpha:]]", "a", false, false},
      {"[]a]+", "]a]", true, true},
      {"[^]a]+", "bc", true, true},
      {"(?P<x>ab)(?P=x)", "abab", true, true},
      {"(?i)Q_PROJ", "q_proj", true, true},
      {"(?!.*lm_head).*", "model.a", true, true},
      {"(?<!x)a", "a", true, true},
      {"\\d+\\.\\w+", "12.q_proj", true, true},
      {"\\v", "\v", true, true},
      {"\\v", "\f", false, false},
      {"\\u0041", "A", true, true},
      {"\\w", "\u00E9", true, true},
      {"", "anything", true, false},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(regex(c.pattern).matches_start(c.text), c.start) << c.pattern;
    EXPECT_EQ(regex(c.pattern).matches_whole(c.text), c.whole) << c.pattern;
  }
}

TEST(PythonRegex, RefusesWhatPythonDoesNotKnow) {
  for (const std::string pattern :
       {"a\\Kb", "\\Qa\\E", "(?R)", "(?1)(a)", "(*MARK:x)a", "(?|a|b)",
        "(?<n>a)", "(?'n'a)", "\\h", "\\R", "\\C", "\\z", "(unclosed", "[a",
        "a**", "(?C1)a", "\\p{L}", "\\N{BULLET}"}) {
    try {
      regex(pattern);
      ADD_FAILURE() << pattern;
    } catch (const Error& error) {
      EXPECT_TRUE(
          std::string(error.what())
              .starts_with("here: regular expression '" + pattern + "' "))
          << error.what();
    }
  }
}

TEST(PythonRegex, APatternIsBoundedInSize) {
  EXPECT_NO_THROW(regex(std::string(4096, 'a')));
  EXPECT_THROW(regex(std::string(4097, 'a')), Error);
  EXPECT_THROW(regex(std::string(2000, '(') + std::string(2000, ')')), Error);
  EXPECT_THROW(regex("((a{60000}){60000}){60000}"), Error);
}

TEST(PythonRegex, MatchingIsBoundedInSteps) {
  for (const std::string pattern :
       {"(.*)+[XY]$", "(a|aa)+$", "(.+)+(.+)+(.+)+[QR]", "(a?){99}a{250}[bc]",
        "(?:(?:a*)*)*[bc]"}) {
    EXPECT_THROW(
        (void)regex(pattern).matches_start(std::string(300, 'a') + "d"), Error)
        << pattern;
  }
}

TEST(PythonRegex, ManyPatternsShareTheirSteps) {
  EXPECT_EQ(steps_per_pattern(0), steps_per_pattern(1));
  EXPECT_EQ(steps_per_pattern(10), 50'000u);
  EXPECT_EQ(steps_per_pattern(1'000'000), 2'000u);
}

}  // namespace
}  // namespace llmpress

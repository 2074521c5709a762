// The regular expressions of tokenizer.json, matched by PCRE2 over UTF-8.
//
// They are written for Oniguruma with Ruby's syntax. What the two engines read
// alike is passed on, \s and \S become the property White_Space (PCRE2's own \s
// counts U+180E), and what PCRE2 would read as something else is refused:
// intersections (&&) and sets inside sets, \h, {,n}, \g.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compress/core/regex.h"

namespace llmpress {

class TextRegex {
 public:
  // Throws Error(kUnsupported) starting with `place` if the pattern is refused.
  TextRegex(std::string_view pattern, const std::string& place);
  // Matches `literal` itself.
  static TextRegex of_literal(std::string_view literal,
                              const std::string& place);

  using Match = Regex::Match;
  // All matches, left to right, none overlapping. `text` must be well-formed.
  // Throws Error(kInvalidInput) if matching needs more steps than allowed.
  std::vector<Match> find_all(std::string_view text) const {
    return regex_.find_all(text);
  }

 private:
  Regex regex_;
};

}  // namespace llmpress

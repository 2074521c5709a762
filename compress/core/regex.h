// Regular expressions that a user or a file gives, matched by PCRE2 over UTF-8.
//
// Every match ends: PCRE2 counts how often it tries again (its match limit) and
// how much memory that takes, and a pattern over either bound is an error that
// names it. The syntax is PCRE2's; python_regex.h and formats/tokenizers/text_regex.h
// translate from what users and tokenizers write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/error.h"

namespace llmpress {

struct RegexOptions {
  std::string place{};                        // in front of every message
  ErrorCode code = ErrorCode::kInvalidInput;  // of a pattern that is refused
  std::string shown{};                        // the pattern as it was written
  std::uint32_t max_steps = 1'000'000;        // of one attempt to match
  bool every_line = false;  // ^ and $ match at every line, as Ruby's do
  // Machine code, worth its time where texts are long. It is bounded as the
  // interpreter is, which goes on where its stack ends.
  bool for_texts = false;
};

// Cheap to copy: copies share the compiled pattern.
class Regex {
 public:
  // Throws Error(options.code) if the pattern is malformed or too large.
  Regex(std::string_view pattern, RegexOptions options);

  struct Match {
    std::size_t begin = 0, end = 0;
  };
  // All matches, left to right, none overlapping. `text` must be well-formed.
  // These throw Error(kInvalidInput for texts, otherwise options.code) if
  // matching takes more than it may.
  std::vector<Match> find_all(std::string_view text) const;
  // From the first character of `text`, and to any place or to its end.
  bool matches_start(std::string_view text) const;
  bool matches_whole(std::string_view text) const;

 private:
  struct Program;
  bool matches(std::string_view text, std::uint32_t anchors) const;

  std::shared_ptr<const Program> program_;
};

}  // namespace llmpress

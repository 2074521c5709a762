#include "compress/core/python_regex.h"

#include <algorithm>
#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

constexpr std::size_t kLongestPattern = 4096;  // bytes

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// From Python's dialect to PCRE2's.
class Translation {
 public:
  Translation(std::string_view pattern, const RegexOptions& options)
      : pattern_(pattern), options_(options) {}

  std::string run() {
    if (pattern_.size() > kLongestPattern) {
      refuse(formatted("is longer than {} bytes", kLongestPattern));
    }
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\') {
        escape();
      } else if (in_set_) {
        set_character();
      } else {
        character();
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(options_.code, "{}regular expression '{}' {}",
         options_.place.empty() ? "" : options_.place + ": ",
         pattern_.substr(0, 120), what);
  }
  char peek(std::size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void replace(std::size_t count, std::string_view by) {
    out_ += by;
    at_ += count;
  }

  void escape() {
    constexpr std::string_view kShared = "AbBdDsSwWafnrtx";
    const char kind = peek(1);
    if (kind == 'Z' && !in_set_) return replace(2, "\\z");
    if (kind == 'v') return replace(2, "\\x0b");
    if (kind == 'u' || kind == 'U') return code_point(kind == 'u' ? 4 : 8);
    if (is_letter(kind) && kShared.find(kind) == std::string_view::npos) {
      refuse(formatted("has \\{}, which Python's re does not know", kind));
    }
    copy(2);
  }

  void code_point(std::size_t digits) {
    out_ += formatted("\\x{{{}}}", pattern_.substr(at_ + 2, digits));
    at_ = std::min(at_ + 2 + digits, pattern_.size());
  }

  void set_character() {
    if (pattern_[at_] == '[') return replace(1, "\\[");
    in_set_ = pattern_[at_] != ']';
    copy(1);
  }

  void character() {
    const char c = pattern_[at_];
    if (c == '{' && peek(1) == ',') {  // {,n}
      std::size_t end = 2;
      while (is_digit(peek(end))) ++end;
      return replace(1, peek(end) == '}' ? "{0" : "\\{");
    }
    if (c == '(') return open();
    if (c == '[') {
      in_set_ = true;
      copy(peek(1) == '^' ? 2 : 1);
      if (peek(0) == ']') copy(1);  // a literal ] where it comes first
      return;
    }
    copy(1);
  }

  void open() {
    if (peek(1) == '*') refuse("has (*, which Python's re does not know");
    if (peek(1) == '?') {
      // (?: (?= (?! (?<= (?<! (?> (?P< (?P= (?# (?( and flags.
      const char kind = peek(2), next = peek(3);
      const bool known = std::string_view(":=!>#(-aiLmsux").find(kind) !=
                             std::string_view::npos ||
                         (kind == '<' && (next == '=' || next == '!')) ||
                         (kind == 'P' && (next == '<' || next == '='));
      if (!known) {
        refuse(formatted("has (?{}, which Python's re does not know",
                         kind == '\0' ? ' ' : kind));
      }
    }
    copy(1);
  }

  std::string_view pattern_;
  const RegexOptions& options_;
  std::size_t at_ = 0;
  bool in_set_ = false;
  std::string out_{};
};

}  // namespace

std::uint32_t steps_per_pattern(std::size_t patterns) {
  constexpr std::size_t kAll = 500'000, kLeast = 2'000, kMost = 100'000;
  return static_cast<std::uint32_t>(
      std::clamp(kAll / std::max<std::size_t>(1, patterns), kLeast, kMost));
}

Regex python_regex(std::string_view pattern, RegexOptions options) {
  if (options.shown.empty()) options.shown = pattern;
  const std::string translated = Translation(pattern, options).run();
  return {translated, std::move(options)};
}

}  // namespace llmpress

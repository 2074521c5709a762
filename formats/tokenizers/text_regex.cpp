#include "formats/tokenizers/text_regex.h"

#include <utility>

#include "compress/core/formatted.h"

namespace llmpress {
namespace {

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  fail(ErrorCode::kUnsupported, "{}: regular expression: {}", place, what);
}

// From Oniguruma's dialect to PCRE2's.
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& place)
      : pattern_(pattern), place_(place) {}

  std::string run() {
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
  char peek(std::size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }

  void escape() {
    const char kind = peek(1);
    if (kind == 's' || kind == 'S') {
      out_ += kind == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      at_ += 2;
      return;
    }
    if (kind == 'h' || kind == 'H' || kind == 'g' || kind == 'Q' ||
        kind == 'E' || kind == 'C' || kind == 'K') {
      refuse(place_, formatted("\\{} is not supported", kind));
    }
    copy(2);
  }

  void set_character() {
    const char c = pattern_[at_];
    if (c == '&' && peek(1) == '&') refuse(place_, "&& is not supported");
    if (c == '[' && peek(1) == ':') {  // [:alpha:]
      const std::size_t end = pattern_.find(":]", at_ + 2);
      if (end == std::string_view::npos) refuse(place_, "[: without :]");
      copy(end + 2 - at_);
      return;
    }
    if (c == '[') refuse(place_, "a set inside a set is not supported");
    in_set_ = c != ']';
    copy(1);
  }

  void character() {
    if (pattern_[at_] == '{' && peek(1) == ',') {
      refuse(place_, "{,n} is not supported");
    }
    if (pattern_[at_] == '(' && (peek(1) == '*' || peek(2) == '#')) {
      refuse(place_, "a verb or comment is not supported");
    }
    if (pattern_[at_] == '[') {
      in_set_ = true;
      copy(peek(1) == '^' ? 2 : 1);
      if (peek(0) == ']') copy(1);  // a literal ] where it comes first
      return;
    }
    copy(1);
  }

  std::string_view pattern_;
  const std::string& place_;
  std::size_t at_ = 0;
  bool in_set_ = false;
  std::string out_{};
};

}  // namespace

TextRegex::TextRegex(std::string_view pattern, const std::string& place)
    // Ruby's ^ and $ match at every line.
    : regex_(Translation(pattern, place).run(),
             {.place = place,
              .code = ErrorCode::kUnsupported,
              .shown = std::string(pattern),
              .every_line = true,
              .for_texts = true}) {}

TextRegex TextRegex::of_literal(std::string_view literal,
                                const std::string& place) {
  std::string pattern;
  for (const char c : literal) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x80 || (c >= '0' && c <= '9') ||
                       (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return {pattern, place};
}

}  // namespace llmpress

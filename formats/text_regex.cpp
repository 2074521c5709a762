#include "formats/text_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "compress/core/error.h"

namespace llmpress {
namespace {

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_compile_context* p) const {
    pcre2_compile_context_free(p);
  }
};

std::string message_of(int code) {
  std::array<unsigned char, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

[[noreturn]] void refuse(const std::string& place, const std::string& what) {
  throw Error(ErrorCode::kUnsupported, place + ": regular expression: " + what);
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
      refuse(place_, std::string("\\") + kind + " is not supported");
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

struct TextRegex::Program {
  std::unique_ptr<pcre2_code, Free> code{};
};

TextRegex::TextRegex(std::string_view pattern, const std::string& place)
    : place_(place), program_(std::make_unique<Program>()) {
  // The compiler of PCRE2 is recursive and quadratic in places.
  constexpr std::size_t kLongestPattern = 1 << 16;
  if (pattern.size() > kLongestPattern) refuse(place, "longer than 64 KiB");
  const std::string translated = Translation(pattern, place).run();
  const std::unique_ptr<pcre2_compile_context, Free> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Ruby's ^ and $ match at every line.
  program_->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get()));
  if (!program_->code) {
    refuse(place, message_of(error) + " at offset " + std::to_string(offset) +
                      " of '" + translated + "'");
  }
  // Where the system allows no JIT, matching falls back to the interpreter.
  pcre2_jit_compile(program_->code.get(), PCRE2_JIT_COMPLETE);
}

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

TextRegex::~TextRegex() = default;
TextRegex::TextRegex(TextRegex&&) noexcept = default;
TextRegex& TextRegex::operator=(TextRegex&&) noexcept = default;

std::vector<TextRegex::Match> TextRegex::find_all(std::string_view text) const {
  const pcre2_code* const code = program_->code.get();
  const std::unique_ptr<pcre2_match_data, Free> data(
      pcre2_match_data_create_from_pattern(code, nullptr));
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::vector<Match> matches;
  std::size_t from = 0;
  while (from <= text.size()) {
    int rc = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                         data.get(), nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter uses the heap
      rc = pcre2_match(code, subject, text.size(), from,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), nullptr);
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      throw Error(ErrorCode::kInvalidInput,
                  place_ + ": regular expression at byte " +
                      std::to_string(from) + " of the text: " + message_of(rc));
    }
    const PCRE2_SIZE* const range = pcre2_get_ovector_pointer(data.get());
    // Only \K, which is refused, could break this.
    if (range[0] > range[1] || range[0] < from) break;
    matches.push_back({range[0], range[1]});
    from = range[1];
    if (range[0] == range[1]) {  // an empty match: one character on
      if (from == text.size()) break;
      do {
        ++from;
      } while (from < text.size() &&
               (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
    }
  }
  return matches;
}

}  // namespace llmpress

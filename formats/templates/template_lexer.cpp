#include "formats/templates/template_lexer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "compress/core/formatted.h"
#include "formats/tokenizers/unicode_text.h"

namespace llmpress {
namespace {

using Kind = TemplateTokenKind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_name(char c) { return is_name_start(c) || is_digit(c); }
bool is_blank(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

class Lexer {
 public:
  explicit Lexer(const TemplateSource& source)
      : source_(source), text_(source.text()) {}

  std::vector<TemplateToken> run() {
    while (at_ < text_.size()) data();
    put(Kind::kEnd, "", at_);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    source_.fail_at(at, ErrorCode::kInvalidInput, what);
  }
  void put(Kind kind, std::string text, std::size_t at) {
    tokens_.push_back({kind, std::move(text), at});
  }
  bool here(std::string_view what) const {
    return text_.substr(at_).starts_with(what);
  }
  std::size_t after_blanks(std::size_t at) const {
    while (at < text_.size()) {
      std::size_t next = at;
      if (!is_blank(next_utf8(text_, next))) break;
      at = next;
    }
    return at;
  }
  std::size_t before_blanks(std::size_t end, std::size_t floor) const {
    while (end > floor) {
      const std::size_t begin = previous_utf8(text_, end);
      std::size_t at = begin;
      if (!is_blank(next_utf8(text_, at))) break;
      end = begin;
    }
    return end;
  }

  // Text up to the next tag, and the tag.
  void data() {
    const std::size_t begin = at_;
    std::size_t tag = text_.find('{', at_);
    while (tag != std::string_view::npos &&
           (tag + 1 == text_.size() ||
            std::string_view("{%#").find(text_[tag + 1]) ==
                std::string_view::npos)) {
      tag = text_.find('{', tag + 1);
    }
    if (tag == std::string_view::npos) {
      put(Kind::kText, std::string(text_.substr(begin)), begin);
      at_ = text_.size();
      return;
    }
    const char kind = text_[tag + 1];
    at_ = tag + 2;
    const char sign = at_ < text_.size() ? text_[at_] : '\0';
    const bool signed_tag = sign == '-' || sign == '+';
    const std::size_t end =
        text_end(begin, tag, signed_tag ? sign : '\0', kind != '{');
    if (end > begin) {
      put(Kind::kText, std::string(text_.substr(begin, end - begin)), begin);
    }
    if (signed_tag) ++at_;
    if (kind == '#') {
      comment(tag);
    } else if (kind == '%' && raw_begins()) {
      raw(tag);
    } else {
      put(kind == '{' ? Kind::kOutputBegin : Kind::kBlockBegin, "", tag);
      expression(tag, kind == '%');
    }
  }

  // Where the text [begin, tag) ends that stands in front of a tag.
  std::size_t text_end(std::size_t begin, std::size_t tag, char sign,
                       bool strips_line) const {
    if (sign == '-') return before_blanks(tag, begin);
    if (sign == '+' || !strips_line) return tag;
    const std::string_view text = text_.substr(begin, tag - begin);
    const std::size_t line = text.rfind('\n');
    const bool starts_line = begin == 0 || text_[begin - 1] == '\n';
    if (line == std::string_view::npos && !starts_line) return tag;
    const std::size_t start =
        line == std::string_view::npos ? begin : begin + line + 1;
    return before_blanks(tag, start) == start ? start : tag;
  }

  // Behind a tag's end: what its sign and trim_blocks take away.
  void close(char sign, bool trims) {
    if (sign == '-') {
      at_ = after_blanks(at_);
    } else if (trims && sign != '+' && at_ < text_.size() &&
               text_[at_] == '\n') {
      ++at_;
    }
  }

  void comment(std::size_t tag) {
    const std::size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) fail(tag, "a comment without end");
    const char sign = end > at_ ? text_[end - 1] : '\0';
    at_ = end + 2;
    close(sign, true);
  }

  // Moves behind "raw %}" if that stands here.
  bool raw_begins() {
    const std::size_t word = after_blanks(at_);
    if (!text_.substr(word).starts_with("raw")) return false;
    std::size_t end = after_blanks(word + 3);
    const bool strips = text_.substr(end).starts_with("-%}");
    if (strips) ++end;
    if (!text_.substr(end).starts_with("%}")) return false;
    at_ = end + 2;
    if (strips) at_ = after_blanks(at_);
    return true;
  }

  void raw(std::size_t tag) {
    const std::size_t begin = at_;
    for (std::size_t found = text_.find("{%", begin);
         found != std::string_view::npos; found = text_.find("{%", found + 1)) {
      std::size_t word = found + 2;
      char sign = word < text_.size() ? text_[word] : '\0';
      if (sign == '-' || sign == '+') {
        ++word;
      } else {
        sign = '\0';
      }
      word = after_blanks(word);
      if (!text_.substr(word).starts_with("endraw")) continue;
      std::size_t end = after_blanks(word + 6);
      char last = end < text_.size() ? text_[end] : '\0';
      if (last == '-' || last == '+') {
        ++end;
      } else {
        last = '\0';
      }
      if (!text_.substr(end).starts_with("%}")) continue;
      const std::size_t stop = text_end(begin, found, sign, true);
      put(Kind::kText, std::string(text_.substr(begin, stop - begin)), begin);
      at_ = end + 2;
      close(last, true);
      return;
    }
    fail(tag, "raw without endraw");
  }

  // The inside of a tag, and its end.
  void expression(std::size_t tag, bool block) {
    const std::string_view end = block ? "%}" : "}}";
    brackets_.clear();
    for (;;) {
      at_ = after_blanks(at_);
      if (at_ == text_.size()) fail(tag, "a tag without end");
      const char c = text_[at_];
      const bool has_sign = (c == '-' || (c == '+' && block)) &&
                            text_.substr(at_ + 1).starts_with(end);
      if (brackets_.empty() && (has_sign || here(end))) {
        put(block ? Kind::kBlockEnd : Kind::kOutputEnd, "", at_);
        at_ += has_sign ? 3 : 2;
        close(has_sign ? c : '\0', block);
        return;
      }
      token();
    }
  }

  void token() {
    const char c = text_[at_];
    if (is_name_start(c)) {
      const std::size_t begin = at_;
      while (at_ < text_.size() && is_name(text_[at_])) ++at_;
      put(Kind::kName, std::string(text_.substr(begin, at_ - begin)), begin);
    } else if (is_digit(c)) {
      number();
    } else if (c == '\'' || c == '"') {
      string(c);
    } else {
      sign();
    }
  }

  void digits() {
    while (at_ < text_.size() && (is_digit(text_[at_]) || text_[at_] == '_')) {
      ++at_;
    }
  }

  void number() {
    const std::size_t begin = at_;
    const auto digit_at = [&](std::size_t at) {
      return at < text_.size() && is_digit(text_[at]);
    };
    digits();
    bool real = false;
    const bool after_dot = begin > 0 && text_[begin - 1] == '.';
    if (!after_dot && here(".") && digit_at(at_ + 1)) {
      ++at_;
      digits();
      real = true;
    }
    if (here("e") || here("E")) {
      const std::size_t sign = at_ + 1;
      const bool is_signed =
          sign < text_.size() && (text_[sign] == '-' || text_[sign] == '+');
      if (digit_at(sign + (is_signed ? 1 : 0))) {
        at_ = sign + (is_signed ? 1 : 0);
        digits();
        real = true;
      }
    }
    if (at_ < text_.size() && is_name(text_[at_])) {
      source_.unsupported(begin, "a number that is not decimal");
    }
    std::string text(text_.substr(begin, at_ - begin));
    std::erase(text, '_');
    put(real ? Kind::kFloat : Kind::kInteger, std::move(text), begin);
  }

  void string(char quote) {
    const std::size_t begin = at_++;
    std::string out;
    for (;;) {
      if (at_ >= text_.size()) fail(begin, "a string without end");
      const char c = text_[at_];
      if (c == quote) break;
      ++at_;
      if (c == '\\') {
        escape(begin, out);
      } else {
        out += c;
      }
    }
    ++at_;
    put(Kind::kString, std::move(out), begin);
  }

  // What stands behind a backslash, as in Python's strings.
  void escape(std::size_t begin, std::string& out) {
    if (at_ >= text_.size()) fail(begin, "a string without end");
    constexpr std::string_view kLetters = "ntrabfv\\'\"";
    constexpr std::string_view kMeaning = "\n\t\r\a\b\f\v\\'\"";
    const char c = text_[at_++];
    const std::size_t known = kLetters.find(c);
    if (known != std::string_view::npos) {
      out += kMeaning[known];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      out_of_hex(c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    } else if (c >= '0' && c <= '7') {
      char32_t value = static_cast<char32_t>(c - '0');
      for (int i = 0; i < 2 && at_ < text_.size() && text_[at_] >= '0' &&
                      text_[at_] <= '7';
           ++i) {
        value = value * 8 + static_cast<char32_t>(text_[at_++] - '0');
      }
      append_utf8(out, value);
    } else if (c == 'N') {
      source_.unsupported(at_ - 2, "\\N in a string");
    } else if (c != '\n') {
      out += '\\';
      out += c;
    }
  }

  void out_of_hex(std::size_t count, std::string& out) {
    const std::size_t begin = at_ - 2;
    char32_t value = 0;
    for (std::size_t i = 0; i < count; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = is_digit(c)              ? c - '0'
                        : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                        : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                                 : -1;
      if (digit < 0) fail(begin, "an escape without its digits");
      value = value << 4 | static_cast<char32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      fail(begin, "an escape that is no character");
    }
    append_utf8(out, value);
  }

  void sign() {
    constexpr std::array<std::string_view, 25> kSigns{
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ":",  "|",  ",",  "(", ")", "[", "]", "{", "}"};
    for (const std::string_view sign : kSigns) {
      if (!here(sign)) continue;
      match_brackets(sign[0]);
      put(Kind::kOperator, std::string(sign), at_);
      at_ += sign.size();
      return;
    }
    fail(at_, formatted("unexpected '{}'", text_[at_]));
  }

  void match_brackets(char c) {
    constexpr std::string_view kOpening = "([{", kClosing = ")]}";
    if (const std::size_t open = kOpening.find(c);
        open != std::string_view::npos) {
      brackets_ += kClosing[open];
    } else if (kClosing.find(c) != std::string_view::npos) {
      if (!brackets_.ends_with(c)) fail(at_, formatted("unexpected '{}'", c));
      brackets_.pop_back();
    }
  }

  const TemplateSource& source_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::string brackets_{};  // that are open, as what closes them
  std::vector<TemplateToken> tokens_{};
};

}  // namespace

std::vector<TemplateToken> lex_template(const TemplateSource& source) {
  return Lexer(source).run();
}

}  // namespace llmpress
